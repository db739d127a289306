"""Guests that ended by themselves: started again, left down, held, waiting for the next try."""

import pytest

from domain.readings import StateReason
from engine.actions.vm_config import EditVm
from engine.queries.explaining import ExplainOperation
from engine.queries.vms import ShowVm
from tests.fakes import Gate
from tests.workflow import ended_guests
from tests.workflow.bench import Bench, relaying
from tests.workflow.ended_guests import end, last_run, report
from tests.workflow.scenarios import waited

pytestmark = pytest.mark.workflow


async def test_a_guest_that_crashed_is_started_again_on_its_host(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_crashed_is_started_again(engine)
    ended = await engine.operation(operation)
    (start,) = await engine.children_of(operation, "vm.start")
    assert (ended["state"], start["state"], start["summary"]) == (
        "succeeded",
        "succeeded",
        "running on h1",
    )
    assert "guest crashed on h1; restarted 0 times in 10 min, 0 of 3 there" in ended["summary"]
    assert (engine.copies("db"), (await last_run(engine, "db"))["generation"]) == (["h1"], 2)
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []
    told = await engine.backend.run_query(ExplainOperation(operation_id=operation))
    assert [(one.question, one.chosen, one.rule) for one in told.decisions] == [
        ("guest_fate", "restart", "WANTED_AND_PROTECTED"),
        ("vm_place", "h1", "BEST_HOST"),
    ]


async def test_what_is_shut_down_from_inside_stays_down(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_was_shut_down_from_inside_stays_down(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert (engine.copies("db"), engine.centre.hosts["h1"].domains) == ([], {})
    assert (await last_run(engine, "db"))["end_reason"] == "guest shut down"
    host = await engine.host("h1")
    assert host["memory_reserved_mib"] == 0
    assert await engine.broken() == []


async def test_a_cancel_during_a_look_is_heeded_before_the_next_wait(engine: Bench) -> None:
    operation = await ended_guests.a_look_at_a_guest_is_cancelled(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "db was left as it was found")
    assert not await waited(engine, operation)
    assert (await last_run(engine, "db"))["active"] == 1


async def test_a_wrong_report_changes_nothing(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_runs_is_left_alone(engine)
    assert (await engine.operation(operation))["summary"] == "db runs on h1 after all"
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])
    told = await engine.backend.run_query(ExplainOperation(operation_id=operation))
    assert [(one.chosen, one.rule) for one in told.decisions] == [
        ("leave it as it is", "GUEST_RUNS")
    ]


async def test_nothing_is_closed_on_the_word_of_a_host_that_does_not_answer(engine: Bench) -> None:
    operation = await ended_guests.a_guest_whose_host_falls_silent_is_left_to_its_recovery(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "HOST_NO_ANSWER")
    assert (await last_run(engine, "db"))["state"] == "running"
    engine.centre.hosts["h1"].lose_power()
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    assert engine.copies("db") != []
    assert await engine.broken() == []


async def test_a_vm_whose_memory_was_saved_by_hand_is_not_touched(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_may_live_elsewhere_is_looked_at_again(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], (await last_run(engine, "db"))["end_reason"]) == (
        "succeeded",
        "guest ended",
    )


async def test_a_vm_that_may_not_be_restarted_now_waits_for_its_next_try(engine: Bench) -> None:
    operation = await ended_guests.a_vm_that_was_restarted_too_often_waits_for_its_next_try(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert engine.copies("db") == ["h1"]
    assert await engine.broken() == []


async def test_a_cancelled_next_try_says_that_the_vm_is_down(engine: Bench) -> None:
    ended = await engine.operation(await ended_guests.a_next_try_is_cancelled(engine))
    said = "db is down; nothing starts it again by itself"
    assert (ended["state"], ended["summary"]) == ("cancelled", said)
    assert await engine.rows("entity_lock") == []


async def test_what_is_disarmed_in_the_middle_waits_until_it_is_armed(engine: Bench) -> None:
    operation = await ended_guests.a_disarmed_cluster_holds_what_was_reported_before(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"


async def test_a_guest_that_is_paused_goes_on_once_its_disk_serves_it(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_is_paused_goes_on(engine)
    assert "it goes on" in (await engine.operation(operation))["summary"]
    run = await last_run(engine, "db")
    assert (run["state"], run["paused_reason"]) == ("running", None)


async def test_a_guest_that_is_left_paused_is_shown_so(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_is_paused_is_left_to_a_person(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    view = await engine.backend.run_query(ShowVm(vm_id=engine.vms["db"]))
    assert (view.state, view.paused) == ("up", "io_error")


async def test_a_host_that_rebooted_since_the_report_is_left_to_its_activation(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    end(engine, "db")
    engine.centre.hosts["h1"].reboot()
    ended = await engine.ended(await report(engine, "db"))
    assert (ended["state"], ended["problem"]["code"]) == ("cancelled", "SUPERSEDED")
    assert (await last_run(engine, "db"))["state"] == "running"


async def test_a_host_that_reboots_right_before_the_run_is_closed_keeps_it_open(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    end(engine, "db")
    gate = engine.centre.before["undefine"] = Gate()
    operation = await report(engine, "db")
    await gate.reached.wait()
    engine.centre.hosts["h1"].reboot()
    gate.open()
    ended = await engine.ended(operation)
    assert (ended["state"], (await last_run(engine, "db"))["state"]) == ("cancelled", "running")


async def test_a_guest_that_comes_back_behind_the_reading_keeps_its_run(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    end(engine, "db")
    gate = engine.centre.before["undefine"] = Gate()
    operation = await report(engine, "db")
    await gate.reached.wait()
    # As a late `create()` of the same run does it, or a person with `virsh start`.
    host = engine.centre.hosts["h1"]
    engine.centre.run(host, vm_id, host.domains[vm_id])
    gate.open()
    ended = await engine.ended(operation)
    assert ended["state"] != "succeeded" or "after all" in ended["summary"]
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])
    assert await engine.broken() == []


async def test_a_late_create_of_a_closed_run_finds_nothing_to_start(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    run = await last_run(engine, "db")
    async with engine.parts.hypervisor.session("qemu+tcp://h1/system", 5) as late:
        end(engine, "db", StateReason.SHUTDOWN)
        await engine.ended(await report(engine, "db"))
        with pytest.raises(Exception, match="DOMAIN_NOT_DEFINED"):
            await late.create(vm_id, run["generation"])
    assert engine.copies("db") == []


async def test_two_monitors_report_the_same_end_once(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    await engine.act(EditVm(vm_id=vm_id, protected=False))
    end(engine, "db")
    gate = engine.centre.before["lookup"] = Gate()
    first = await report(engine, "db")
    await gate.reached.wait()
    with pytest.raises(Exception, match="OBJECT_BUSY"):
        await report(engine, "db")
    gate.open()
    assert (await engine.ended(first))["state"] == "succeeded"
    with pytest.raises(Exception, match=r"VM_STATE_FORBIDS|RUN_MOVED_ON"):
        await report(engine, "db")
    async with relaying(engine):
        assert engine.copies("db") == []

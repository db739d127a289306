"""Guests that hang: asked afresh, ended on their live hosts and started again, or left alone."""

from uuid import UUID

import pytest

from domain.ended_guests import HUNG
from domain.inventory import OnHang
from engine.actions.vm_config import EditVm
from tests.fakes import Gate
from tests.workflow import ended_guests
from tests.workflow.bench import Bench
from tests.workflow.ended_guests import last_run, report

pytestmark = pytest.mark.workflow


async def hangs(bench: Bench, **changes: object) -> None:
    """`db` runs on h1, hangs, and is to be started again then."""
    vm_id = await bench.add_vm("db", "h1")
    wanted = {"on_hang": OnHang.RESTART} | changes
    await bench.act(EditVm.model_validate({"vm_id": vm_id} | wanted))
    bench.centre.hosts["h1"].hang(vm_id)


async def test_a_guest_that_hangs_is_ended_and_started_again(engine: Bench) -> None:
    operation = await ended_guests.a_guest_that_hangs_is_ended_and_started_again(engine)
    ended = await engine.operation(operation)
    (start,) = await engine.children_of(operation, "vm.start")
    assert (ended["state"], start["state"]) == ("succeeded", "succeeded")
    assert "db hangs on h1: its guest agent is silent; it is ended" in ended["summary"]
    first, second = sorted(await engine.rows("vm_run"), key=lambda run: int(run["generation"]))
    assert (first["state"], first["end_reason"], second["state"]) == ("ended", HUNG, "running")
    assert (engine.copies("db"), second["agent_silent_since"]) == (["h1"], None)
    assert not engine.centre.hosts["h1"].domains[engine.vms["db"]].hung
    assert await engine.broken() == []


async def test_a_guest_whose_agent_answers_again_is_not_touched_and_that_is_told(
    engine: Bench,
) -> None:
    operation = await ended_guests.a_guest_that_came_to_is_left_alone(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "succeeded"
    assert ended["summary"].startswith("db runs on h1 after all: its guest agent answers")
    assert ((await last_run(engine, "db"))["generation"], engine.copies("db")) == (1, ["h1"])


async def test_a_guest_that_comes_to_just_before_it_would_be_ended_is_not(engine: Bench) -> None:
    await hangs(engine)
    operation, asked = await about_to_be_ended(engine)
    engine.centre.hosts["h1"].domains[engine.vms["db"]].hung = False
    asked.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "db runs on h1 after all")
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])


@pytest.mark.parametrize(
    "changes", [{"protected": False}, {"on_hang": OnHang.REPORT}, {"on_hang": OnHang.OFF}]
)
async def test_a_policy_that_changes_just_before_its_guest_would_be_ended_spares_it(
    engine: Bench, changes: dict[str, object]
) -> None:
    await hangs(engine)
    operation, asked = await about_to_be_ended(engine)
    await engine.act(EditVm.model_validate({"vm_id": engine.vms["db"]} | changes))
    asked.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == (
        "succeeded",
        "db hangs on h1: its guest agent is silent; it is left as it is",
    )
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])


async def test_a_cluster_that_is_disarmed_just_before_a_guest_would_be_ended_spares_it(
    engine: Bench,
) -> None:
    await hangs(engine)
    operation, asked = await about_to_be_ended(engine)
    await engine.arm(False)
    asked.open()
    ended = await engine.ended(operation)
    assert ended["problem"]["code"] == "DISARMED"
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])


async def about_to_be_ended(bench: Bench) -> tuple[UUID, Gate]:
    """Report that `db` hangs; the operation, and the first question of the step that ends it."""
    # Two questions of the step that judges come before it.
    asked = bench.centre.before["agent_ping"] = Gate()
    operation = await report(bench, "db", hung=True)
    for _ in range(2):
        await asked.reached.wait()
        later = bench.centre.before["agent_ping"] = Gate()
        asked.open()
        asked = later
    await asked.reached.wait()
    return operation, asked


async def test_one_that_hangs_too_often_is_left_as_it_is_until_it_may_be_restarted(
    engine: Bench,
) -> None:
    operation = await ended_guests.a_guest_that_hangs_too_often_is_left_as_it_is(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert ((await last_run(engine, "db"))["state"], engine.copies("db")) == ("running", ["h1"])


@pytest.mark.parametrize("changes", [{"protected": False}, {"on_hang": OnHang.REPORT}])
async def test_what_nobody_asked_to_restart_is_left_as_it_is(
    engine: Bench, changes: dict[str, object]
) -> None:
    await hangs(engine, **changes)
    ended = await engine.ended(await report(engine, "db", hung=True))
    assert (ended["state"], ended["summary"]) == (
        "succeeded",
        "db hangs on h1: its guest agent is silent; it is left as it is",
    )
    assert engine.copies("db") == ["h1"]


async def test_a_wrong_report_of_a_hang_does_not_end_a_guest_that_hung_in_an_earlier_run(
    engine: Bench,
) -> None:
    await hangs(engine)
    engine.centre.hosts["h1"].domains[engine.vms["db"]].running = 7  # another's process
    ended = await engine.ended(await report(engine, "db", hung=True))
    assert "after all" in ended["summary"]
    assert engine.copies("db") == ["h1"]

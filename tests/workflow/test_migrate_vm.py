"""MigrateVm, from the request to the copy on the other host, and what a failure leaves."""

from uuid import UUID

import pytest

from engine.actions.operations import CancelOperation
from store.rows import Row
from tests.workflow import migrations
from tests.workflow.bench import POLICY, Bench, quick
from tests.workflow.migrations import under_way

pytestmark = pytest.mark.workflow


async def run_of(engine: Bench, vm: str) -> Row:
    """The active run of a VM."""
    (run,) = [
        run
        for run in await engine.rows("vm_run")
        if run["active"] == 1 and run["vm_id"] == engine.vms[vm]
    ]
    return run


async def started_again(engine: Bench, operation: UUID) -> None:
    """Its migration orders the VM's start; a recovery that claims its run later takes that over."""
    assert len(await engine.children_of(operation, "vm.start")) == 1
    await engine.idle()
    assert len(engine.copies("db")) == 1


async def test_a_moved_vm_runs_on_its_target_with_the_next_generation(engine: Bench) -> None:
    operation = await migrations.a_vm_is_moved(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "db runs on h2")
    run = await run_of(engine, "db")
    assert (run["host_id"], run["generation"], run["state"]) == (engine.hosts["h2"], 2, "running")
    assert engine.copies("db") == ["h2"]
    assert engine.centre.hosts["h1"].domains == {}
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_moved_vm_can_be_moved_back_and_stopped(engine: Bench) -> None:
    await migrations.a_vm_is_moved(engine)
    assert (await engine.ended(await engine.migrate("db", "h1")))["state"] == "succeeded"
    assert engine.copies("db") == ["h1"]
    assert (await engine.ended(await engine.stop("db", force=True)))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == ([], [])


async def test_a_move_waits_until_a_host_has_room(engine: Bench) -> None:
    ended = await engine.operation(await migrations.a_move_waits_for_room(engine))
    assert (ended["state"], engine.copies("db")) == ("succeeded", ["h3"])
    assert await engine.broken() == []


async def test_what_libvirt_refuses_to_move_runs_on_where_it_was(engine: Bench) -> None:
    operation = await migrations.a_move_that_libvirt_refuses_leaves_the_vm_where_it_is(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "LIBVIRT_REFUSED")
    run = await run_of(engine, "db")
    assert (run["state"], run["host_id"], run["generation"]) == ("running", engine.hosts["h1"], 1)
    assert (await engine.host("h2"))["memory_reserved_mib"] == 0
    assert (engine.copies("db"), await engine.broken()) == (["h1"], [])


async def test_a_move_cancelled_under_way_is_given_up_and_says_so(engine: Bench) -> None:
    ended = await engine.operation(await migrations.a_move_under_way_is_cancelled(engine))
    assert (ended["state"], ended["summary"]) == ("cancelled", "db runs on h1 as before")
    assert (engine.copies("db"), await engine.broken()) == (["h1"], [])


async def test_a_vm_whose_move_was_given_up_can_be_moved_there_after_all(engine: Bench) -> None:
    await migrations.a_move_under_way_is_cancelled(engine)
    engine.centre.stalled.clear()
    assert (await engine.ended(await engine.migrate("db", "h2")))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == (["h2"], [])


async def test_a_move_cancelled_while_it_waits_has_moved_nothing(engine: Bench) -> None:
    ended = await engine.operation(await migrations.a_waiting_move_is_cancelled(engine))
    assert (ended["state"], ended["summary"]) == ("cancelled", "nothing was moved")
    assert await engine.broken() == []


async def test_a_source_that_dies_is_recovered_and_its_leaving_vm_starts_once(
    engine: Bench,
) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    engine.centre.hosts["h1"].lose_power()
    recovery = await engine.ended(await engine.report("h1"))
    assert recovery["state"] == "succeeded"
    ended = await engine.ended(operation)
    assert ended["problem"]["code"] == "VM_LOST_IN_MIGRATION"
    await started_again(engine, operation)
    assert await engine.broken() == []


async def test_a_move_that_takes_longer_than_it_may_is_given_up(engine: Bench) -> None:
    ended = await engine.operation(await migrations.a_move_that_takes_too_long_is_given_up(engine))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "MIGRATION_TOO_SLOW")
    assert ended["problem"]["detail"] == "db was not moved within 5 s"
    run = await run_of(engine, "db")
    assert (run["state"], run["generation"], engine.copies("db")) == ("running", 1, ["h1"])
    assert engine.centre.hosts["h1"].moves == {}
    assert await engine.broken() == []


async def test_a_move_that_is_cancelled_when_its_end_is_not_known_is_given_up(
    engine: Bench,
) -> None:
    with quick(POLICY.model_copy(update={"migrate_deadline_s": 600})):
        vm_id = await engine.add_vm("db", "h1")
        engine.centre.stalled.add(vm_id)
        operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    engine.centre.hosts["h1"].reachable = False
    await engine.waits(operation, "HOST_NOT_PROVEN_DEAD")
    await engine.act(CancelOperation(operation_id=operation))
    engine.centre.hosts["h1"].reachable = True
    ended = await engine.ended(operation)
    assert (ended["state"], engine.copies("db")) == ("cancelled", ["h1"])
    assert engine.centre.hosts["h1"].moves == {}
    assert await engine.broken() == []


async def test_a_target_that_dies_costs_its_arriving_vm_nothing(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    engine.centre.hosts["h2"].lose_power()
    await engine.waits(operation, "HOST_NOT_PROVEN_DEAD")
    run = await run_of(engine, "db")
    assert (run["state"], run["target_host_id"]) == ("migrating", engine.hosts["h2"])
    await engine.ended(await engine.report("h2"))
    ended = await engine.ended(operation)
    assert (ended["state"], engine.copies("db")) == ("failed", ["h1"])
    run = await run_of(engine, "db")
    assert (run["state"], run["generation"]) == ("running", 1)
    assert await engine.broken() == []


async def test_a_vm_that_arrived_on_a_target_that_died_at_once_starts_again(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    move = engine.centre.hosts["h1"].moves[vm_id]
    move._switch()  # type: ignore[attr-defined]
    move._confirm()  # type: ignore[attr-defined]
    engine.centre.hosts["h2"].lose_power()
    await engine.ended(await engine.report("h2"))
    await engine.ended(operation)
    await started_again(engine, operation)
    assert await engine.broken() == []


async def test_both_hosts_dead_leaves_two_lost_runs_and_one_start(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    for name in ("h1", "h2"):
        engine.centre.hosts[name].lose_power()
    for name in ("h1", "h2"):
        await engine.ended(await engine.report(name))
    await engine.ended(operation)
    lost = [run for run in await engine.rows("vm_run") if run["state"] == "lost"]
    hosts = {run["host_id"]: run["generation"] for run in lost}
    assert hosts == {engine.hosts["h1"]: 1, engine.hosts["h2"]: 2}
    await started_again(engine, operation)
    assert (engine.copies("db"), await engine.broken()) == (["h3"], [])


async def test_a_source_that_handed_over_and_heard_no_more_is_cleared(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    move = engine.centre.hosts["h1"].moves[vm_id]
    move._switch()  # type: ignore[attr-defined]
    move._fail("the confirmation was lost")  # type: ignore[attr-defined]
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "db runs on h2")
    assert engine.centre.hosts["h1"].domains == {}
    assert await engine.broken() == []

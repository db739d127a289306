"""AdoptCopy: a VM that was moved by hand has its run where it lives, and only if it lives once."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from domain.errors import Conflict
from domain.readings import DomainState
from store.rows import Row
from tests.fakes import Gate
from tests.workflow import adoptions
from tests.workflow.adoptions import adopt, move_and_leave_behind
from tests.workflow.bench import Bench
from tests.workflow.ended_guests import last_run
from tests.workflow.stray_copies import move_by_hand

pytestmark = pytest.mark.workflow


async def told(engine: Bench) -> list[Row]:
    """What was told of copies that were adopted."""
    return [row["data"] for row in await engine.rows("event") if row["type"] == "vm.copy_adopted"]


async def not_adopted(engine: Bench, operation: UUID, code: str) -> Row:
    """The operation, refused for this reason; the books are as they were."""
    ended = await engine.ended(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", code)
    assert ended["problem"]["next_step"]
    run = await last_run(engine, "db")
    assert (run["state"], run["generation"], await told(engine)) == ("running", 1, [])
    return ended


ADOPTED = [
    adoptions.a_vm_that_was_moved_by_hand_is_adopted,
    adoptions.a_vm_is_adopted_while_its_recovery_waits,
]


@pytest.mark.parametrize("scenario", ADOPTED)
async def test_a_vm_that_was_moved_by_hand_has_its_run_where_it_lives(
    engine: Bench, scenario: Callable[[Bench], Awaitable[UUID]]
) -> None:
    ended = await engine.operation(await scenario(engine))
    summary = "the copy of db on h2 is its run now, in generation 2"
    assert (ended["state"], ended["summary"]) == ("succeeded", summary)
    run = await last_run(engine, "db")
    assert (run["state"], run["generation"], run["host_id"]) == ("running", 2, engine.hosts["h2"])
    assert (engine.copies("db"), engine.centre.hosts["h1"].domains) == (["h2"], {})
    mark = engine.centre.hosts["h2"].domains[engine.vms["db"]]
    assert (mark.running, mark.generation) == (2, 2)
    assert [(await engine.host(name))["memory_reserved_mib"] for name in ("h1", "h2")] == [0, 128]
    (event,) = await told(engine)
    assert (event["was"], event["host"], event["generation"]) == ("h1", "h2", 2)
    recoveries = [op for op in await engine.rows("operation") if op["kind"] == "vm.recover"]
    assert [op["reason_code"] for op in recoveries] == ["superseded"] * len(recoveries)
    await engine.idle()
    assert await engine.broken() == []


async def test_an_adopted_vm_is_stopped_moved_and_started_like_any_other(engine: Bench) -> None:
    await adoptions.a_vm_that_was_moved_by_hand_is_adopted(engine)
    assert (await engine.ended(await engine.migrate("db", "h1")))["state"] == "succeeded"
    assert engine.copies("db") == ["h1"]
    assert (await engine.ended(await engine.stop("db")))["state"] == "succeeded"
    assert engine.copies("db") == []
    assert (await engine.ended(await engine.start("db")))["state"] == "succeeded"
    assert ((await last_run(engine, "db"))["generation"], await engine.broken()) == (4, [])


async def test_what_is_not_ours_on_the_old_host_stays_and_that_is_told(engine: Bench) -> None:
    operation = await adoptions.what_is_left_behind_and_is_not_ours_stays(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "succeeded"
    assert "; h1 may still know it: db is not ours" in ended["summary"]
    assert engine.vms["db"] in engine.centre.hosts["h1"].domains
    assert (await last_run(engine, "db"))["host_id"] == engine.hosts["h2"]


async def test_neither_of_two_copies_is_adopted_be_the_other_one_paused(engine: Bench) -> None:
    operation = await adoptions.neither_of_two_copies_is_adopted(engine)
    await not_adopted(engine, operation, "COPY_DOUBLED")
    engine.centre.hosts["h1"].domains[engine.vms["db"]].state = DomainState.PAUSED
    await not_adopted(engine, await adopt(engine, "db", "h2"), "COPY_DOUBLED")


async def test_nothing_is_adopted_while_the_host_that_it_left_is_silent(engine: Bench) -> None:
    operation = await adoptions.nothing_is_adopted_while_the_old_host_is_silent(engine)
    await not_adopted(engine, operation, "HOST_NOT_READ")


async def test_an_adoption_that_is_cancelled_in_time_changes_nothing(engine: Bench) -> None:
    operation = await adoptions.an_adoption_is_cancelled(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "the copy of db on h2 was only read")
    mark = engine.centre.hosts["h2"].domains[engine.vms["db"]]
    assert (mark.running, (await last_run(engine, "db"))["generation"]) == (1, 1)


async def adopt_held_before(engine: Bench, step: str, gate: Gate) -> UUID:
    """Ask for an adoption that is held at the first connection of a step."""

    async def hold() -> None:
        names = {row["name"] for row in await engine.rows("step")}
        if step in names:
            await gate()

    engine.centre.before["open"] = hold
    operation = await adopt(engine, "db", "h2")
    await gate.reached.wait()
    return operation


@pytest.mark.parametrize("again", [DomainState.RUNNING, DomainState.PAUSED])
async def test_a_copy_that_comes_up_on_the_old_host_before_the_mark_stops_it(
    engine: Bench, again: DomainState
) -> None:
    await engine.add_vm("db", "h1")
    move_and_leave_behind(engine, "db", "h1", "h2")
    opening = Gate()
    operation = await adopt_held_before(engine, "adoption.mark", opening)
    left = engine.centre.hosts["h1"].domains[engine.vms["db"]]
    left.begin(by_hand=True)
    left.state = again
    opening.open()
    await not_adopted(engine, operation, "COPY_DOUBLED")
    assert engine.centre.hosts["h2"].domains[engine.vms["db"]].running == 1


async def test_a_copy_that_comes_up_on_the_old_host_after_the_mark_keeps_the_books(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    move_and_leave_behind(engine, "db", "h1", "h2")
    opening = Gate()
    operation = await adopt_held_before(engine, "adoption.record", opening)
    engine.centre.hosts["h1"].domains[engine.vms["db"]].begin(by_hand=True)
    opening.open()
    await not_adopted(engine, operation, "COPY_DOUBLED")


async def test_a_copy_with_another_mark_than_was_read_is_not_marked(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    move_by_hand(engine, "db", "h1", "h2")
    marking = engine.centre.before["renew_mark"] = Gate()
    operation = await adopt(engine, "db", "h2")
    await marking.reached.wait()
    engine.centre.hosts["h2"].domains[engine.vms["db"]].running = 0
    marking.open()
    ended = await not_adopted(engine, operation, "COPY_CHANGED")
    assert "destroy" not in ended["problem"]["next_step"]


async def test_a_vm_that_should_run_nowhere_cannot_be_adopted(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    move_by_hand(engine, "db", "h1", "h2")
    await engine.ended(await engine.stop("db", force=True))
    with pytest.raises(Conflict, match="VM_NOT_RUNNING"):
        await adopt(engine, "db", "h2")

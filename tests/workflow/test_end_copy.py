"""EndCopy: a doubled VM is brought back to one copy, and no copy is ended that should not be."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from domain.errors import Conflict
from store.rows import Row
from tests.fakes import FakeDomain, Gate
from tests.faults import IN_PROCESS, Fault
from tests.replay.golden import ALL
from tests.workflow import stray_copies
from tests.workflow.bench import Bench, quick
from tests.workflow.ended_guests import last_run
from tests.workflow.stray_copies import end_copy, move_by_hand, start_by_hand
from tests.workflow.trials import Case, check, run_all

pytestmark = pytest.mark.workflow


async def told(engine: Bench) -> list[Row]:
    """What was told of copies that were ended."""
    return [row["data"] for row in await engine.rows("event") if row["type"] == "vm.copy_ended"]


async def doubled(engine: Bench) -> FakeDomain:
    """`db` runs on h1 as it should, and on h2 as somebody has started it; that copy."""
    await engine.add_vm("db", "h1")
    start_by_hand(engine, "db", "h1", "h2")
    return engine.centre.hosts["h2"].domains[engine.vms["db"]]


async def test_a_doubled_vm_has_one_copy_again_and_that_is_told(engine: Bench) -> None:
    operation = await stray_copies.a_copy_that_was_started_by_hand_is_ended(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == (
        "succeeded",
        "the copy ended on h2; db runs on h1",
    )
    assert (engine.copies("db"), engine.centre.hosts["h2"].domains) == (["h1"], {})
    run = await last_run(engine, "db")
    assert (run["state"], run["generation"]) == ("running", 1)
    (event,) = await told(engine)
    assert (event["host"], event["generation"], event["last"]) == ("h2", 1, False)
    assert await engine.broken() == []


async def test_what_may_be_the_last_copy_is_not_ended_unless_somebody_says_so(
    engine: Bench,
) -> None:
    operation = await stray_copies.a_copy_that_may_be_the_last_is_left(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "LAST_COPY")
    assert "was not read as running on h1" in ended["problem"]["detail"]
    assert "--last-copy" in ended["problem"]["next_step"]
    assert (engine.copies("db"), await told(engine)) == (["h2"], [])


LAST = [
    stray_copies.a_last_copy_is_ended,
    stray_copies.a_last_copy_is_ended_while_its_recovery_waits,
]


@pytest.mark.parametrize("scenario", LAST)
async def test_a_last_copy_is_ended_and_the_vm_is_down_for_good(
    engine: Bench, scenario: Callable[[Bench], Awaitable[UUID]]
) -> None:
    ended = await engine.operation(await scenario(engine))
    assert (ended["state"], ended["summary"]) == (
        "succeeded",
        "the copy ended on h2; db has no other and is down",
    )
    run, (vm,) = await last_run(engine, "db"), await engine.rows("vm")
    assert (run["state"], run["end_reason"], vm["wanted"]) == ("ended", "last copy ended", False)
    assert (engine.copies("db"), engine.centre.hosts["h1"].domains) == ([], {})
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0
    recoveries = [op for op in await engine.rows("operation") if op["kind"] == "vm.recover"]
    assert [op["reason_code"] for op in recoveries] == ["superseded"] * len(recoveries)
    await engine.idle()
    assert await engine.broken() == []


async def test_a_copy_of_a_vm_that_should_be_down_is_ended(engine: Bench) -> None:
    operation = await stray_copies.a_copy_of_a_vm_that_is_down_is_ended(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == ([], [])


async def test_a_copy_whose_host_cannot_be_read_is_left(engine: Bench) -> None:
    operation = await stray_copies.a_copy_on_a_host_that_falls_silent_is_left(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "HOST_NO_ANSWER")
    assert engine.copies("db") == ["h1", "h2"]


async def test_a_copy_whose_end_is_cancelled_in_time_is_left(engine: Bench) -> None:
    operation = await stray_copies.the_end_of_a_copy_is_cancelled(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "the copy of db on h2 was only read")
    assert engine.copies("db") == ["h1", "h2"]


async def test_a_domain_without_our_mark_is_never_touched(engine: Bench) -> None:
    (await doubled(engine)).running = None
    ended = await engine.ended(await end_copy(engine, "db", "h2", last_copy=True))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "COPY_FOREIGN")
    assert engine.copies("db") == ["h1", "h2"]


async def test_a_copy_that_is_newer_than_the_books_is_never_touched(engine: Bench) -> None:
    copy = await doubled(engine)
    copy.running = copy.generation = 7
    ended = await engine.ended(await end_copy(engine, "db", "h2", last_copy=True))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "COPY_NEWER")
    assert engine.copies("db") == ["h1", "h2"]


async def test_a_copy_that_was_started_there_meanwhile_has_a_newer_mark_and_stays(
    engine: Bench,
) -> None:
    copy = await doubled(engine)
    ending = engine.centre.before["destroy"] = Gate()
    operation = await end_copy(engine, "db", "h2")
    await ending.reached.wait()
    copy.running = copy.generation = 2
    ending.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("cancelled", "GENERATION_STALE")
    assert engine.copies("db") == ["h1", "h2"]


async def test_the_vm_s_own_copy_ends_just_before_and_the_other_is_kept(engine: Bench) -> None:
    await doubled(engine)
    # The first look of the step that would end it: the step that judged has had two.
    looks = engine.centre.before["lookup"] = Gate()
    operation = await end_copy(engine, "db", "h2")
    for _ in range(2):
        await looks.reached.wait()
        later = engine.centre.before["lookup"] = Gate()
        looks.open()
        looks = later
    await looks.reached.wait()
    engine.centre.hosts["h1"].domains.clear()
    looks.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "LAST_COPY")
    assert engine.copies("db") == ["h2"]


async def test_no_copy_at_all_is_told(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    ended = await engine.ended(await end_copy(engine, "db", "h2"))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "COPY_NOT_FOUND")
    assert engine.copies("db") == ["h1"]


async def test_the_copy_that_the_books_know_is_not_ended_this_way(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    with pytest.raises(Conflict, match="COPY_IS_THE_RUN") as refused:
        await end_copy(engine, "db", "h1", last_copy=True)
    assert refused.value.next_step == "`holdfast vm stop db` ends it there"


async def test_without_a_word_on_the_last_copy_a_waiting_recovery_keeps_the_vm(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    await stray_copies.recovery_waits(engine)
    with pytest.raises(Conflict, match="OBJECT_BUSY"):
        await end_copy(engine, "db", "h2")


async def test_a_vm_on_its_way_is_left_to_its_migration(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    await engine.migrate("db", "h2")

    async def moving() -> bool:
        return bool((await last_run(engine, "db"))["state"] == "migrating")

    await engine.until(moving, "it never began to move")
    with pytest.raises(Conflict, match="VM_MIGRATING"):
        await end_copy(engine, "db", "h3", last_copy=True)


async def test_a_moved_vm_that_should_run_nowhere_needs_the_word_at_once(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    move_by_hand(engine, "db", "h1", "h2")
    await engine.ended(await engine.stop("db", force=True))
    with pytest.raises(Conflict, match="LAST_COPY"):
        await end_copy(engine, "db", "h2")
    assert engine.copies("db") == ["h2"]


LAST_GOLDEN = next(item for item in ALL if item.scenario is stray_copies.a_last_copy_is_ended)


@pytest.mark.parametrize("fault", IN_PROCESS, ids=str)
async def test_a_fault_in_the_step_that_closes_the_run_changes_no_end(
    temporal_address: str, migrated: Path, tmp_path: Path, fault: Fault
) -> None:
    with quick():
        case = Case(LAST_GOLDEN, "copy.record", fault)
        results = await run_all([case], temporal_address, migrated, tmp_path)
    check(results[case])

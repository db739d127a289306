"""Who owns a VM that moves: every pair of readings has one answer, and silence never is one."""

from itertools import product
from uuid import uuid4

import pytest

from domain.migration import MigrationFacts, Settling, Side, settle, side_of
from domain.readings import Domain, DomainState

pytestmark = pytest.mark.unit

NO_JOB = list(product(Side, Side))


def facts(source: Side, target: Side, *, job: bool = False, abort: bool = False) -> MigrationFacts:
    return MigrationFacts(
        vm="db", source_host="h1", target_host="h2", source=source, target=target, job=job,
        abort=abort,
    )  # fmt: skip


@pytest.mark.parametrize(("source", "target"), NO_JOB)
def test_a_host_that_was_neither_read_nor_proven_dead_settles_nothing(
    source: Side, target: Side
) -> None:
    verdict = settle(facts(source, target))
    silent = Side.SILENT in (source, target)
    assert (verdict.code == "HOST_NOT_PROVEN_DEAD") is silent
    assert not silent or verdict.move is Settling.WAIT


@pytest.mark.parametrize(("source", "target"), NO_JOB)
def test_a_vm_is_nowhere_only_where_neither_host_has_a_process(source: Side, target: Side) -> None:
    nothing = {Side.GONE, Side.DEAD}
    verdict = settle(facts(source, target))
    assert (verdict.move is Settling.NOWHERE) is ({source, target} <= nothing)


@pytest.mark.parametrize(("source", "target"), NO_JOB)
def test_no_running_copy_is_ever_ended(source: Side, target: Side) -> None:
    move = settle(facts(source, target)).move
    assert move is not Settling.END_SOURCE or source is Side.HELD
    assert move is not Settling.END_TARGET or target is Side.HELD


def test_a_source_that_handed_over_is_not_resumed_when_its_target_is_gone() -> None:
    assert settle(facts(Side.HELD, Side.DEAD)).move is Settling.END_SOURCE


def test_two_running_copies_are_left_to_a_person() -> None:
    verdict = settle(facts(Side.RUNS, Side.RUNS))
    assert (verdict.move, verdict.code) == (Settling.WAIT, "MIGRATION_DOUBLED")


@pytest.mark.parametrize("source", [Side.RUNS, Side.HELD])
def test_a_job_under_way_is_waited_for_and_given_up_only_before_its_switch_over(
    source: Side,
) -> None:
    assert settle(facts(source, Side.HELD, job=True)).code == "MIGRATION_UNDER_WAY"
    given_up = settle(facts(source, Side.HELD, job=True, abort=True)).move
    assert given_up is (Settling.ABORT if source is Side.RUNS else Settling.WAIT)


@pytest.mark.parametrize(
    ("state", "held", "side"),
    [
        (DomainState.RUNNING, False, Side.RUNS),
        (DomainState.PAUSED, False, Side.RUNS),
        (DomainState.PAUSED, True, Side.HELD),
        (DomainState.SHUTOFF, False, Side.GONE),
    ],
)
def test_a_paused_guest_runs_unless_a_migration_holds_it(
    state: DomainState, held: bool, side: Side
) -> None:
    found = Domain(vm_id=uuid4(), name="db", state=state, generation=1, held=held)
    assert side_of(found) is side
    assert side_of(None) is Side.GONE

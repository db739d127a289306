"""The next move of a recovery: a sign of life first, then proof, then the guard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.inventory import PowerReading
from domain.profiles import Policy
from domain.recovery import Decision, Move, decide
from domain.storm import FenceFacts, HoldReason
from tests.unit.domain.builders import OFF, ON, UNKNOWN, fence_facts, recovery_facts, vote

pytestmark = pytest.mark.unit

POLICY = Policy()
EVERYTHING_HOLDS = fence_facts(
    vote(fresh=False, warm=False),
    armed=False,
    own_host=True,
    devices=0,
    hosts_silent=3,
    fences_in_window=5,
)


def reasons(decision: Decision) -> list[HoldReason]:
    return [held.reason for held in decision.held]


@pytest.mark.parametrize("readings", [(), (OFF,), (OFF, OFF), (ON,), (UNKNOWN,)])
@pytest.mark.parametrize("fence", [None, EVERYTHING_HOLDS], ids=["free", "held"])
def test_a_sign_of_life_wins_over_everything(
    readings: tuple[PowerReading, ...], fence: FenceFacts | None
) -> None:
    decision = decide(recovery_facts(*readings, answers=True, fence=fence), POLICY)
    assert decision == Decision(move=Move.RETURN, why="h1 answers again")


@pytest.mark.parametrize("count", [1, 2])
def test_power_that_reads_off_everywhere_is_accepted(count: int) -> None:
    decision = decide(recovery_facts(*[OFF] * count), POLICY)
    assert decision.move is Move.ACCEPT
    assert decision.why == f"{count} of {count} power devices read off"


@pytest.mark.parametrize(
    "fence",
    [
        fence_facts(hosts_silent=3),
        fence_facts(fences_in_window=9),
        fence_facts(vote(warm=False)),
        fence_facts(vote(others_seen=0)),
        fence_facts(vote(fresh=False)),
    ],
    ids=["many silent", "budget spent", "cold view", "blind monitor", "no fresh vote"],
)
def test_the_guard_does_not_hold_a_host_that_reads_off_already(fence: FenceFacts) -> None:
    assert decide(recovery_facts(OFF, fence=fence), POLICY).move is Move.ACCEPT
    assert decide(recovery_facts(ON, fence=fence), POLICY).move is Move.HOLD


@pytest.mark.parametrize("reading", list(PowerReading))
def test_a_disarmed_cluster_holds_whatever_the_power_reads(reading: PowerReading) -> None:
    decision = decide(recovery_facts(reading, fence=fence_facts(armed=False)), POLICY)
    assert (decision.move, decision.why) == (Move.HOLD, "automatic action is disarmed")
    assert reasons(decision) == [HoldReason.DISARMED]


def test_a_disarmed_cluster_names_only_what_holds_a_proven_recovery() -> None:
    fence = fence_facts(armed=False, fences_in_window=3, hosts_silent=3)
    assert reasons(decide(recovery_facts(OFF, fence=fence), POLICY)) == [HoldReason.DISARMED]


def test_a_controller_that_calls_the_engines_own_machine_off_is_not_believed() -> None:
    decision = decide(recovery_facts(OFF, fence=fence_facts(own_host=True)), POLICY)
    assert (decision.move, decision.why) == (Move.HOLD, "the engine itself runs on h1")
    assert reasons(decision) == [HoldReason.OWN_HOST]


@pytest.mark.parametrize(
    "readings",
    [(ON,), (UNKNOWN,), (OFF, ON), (ON, OFF), (OFF, UNKNOWN), (UNKNOWN, UNKNOWN)],
    ids=lambda readings: "+".join(readings),
)
def test_a_silent_host_that_is_not_off_everywhere_is_fenced(
    readings: tuple[PowerReading, ...],
) -> None:
    decision = decide(recovery_facts(*readings), POLICY)
    assert decision.move is Move.FENCE
    assert decision.why == "h1 is silent and nothing speaks against it"
    assert decision.held == ()


def test_no_device_at_all_is_never_proof_and_never_cut() -> None:
    decision = decide(recovery_facts(), POLICY)
    assert decision.move is Move.HOLD
    assert reasons(decision) == [HoldReason.NO_FENCE_DEVICE]


def test_a_held_fence_gives_every_reason_in_one_sentence() -> None:
    fence = fence_facts(vote(warm=False), fences_in_window=1)
    decision = decide(recovery_facts(ON, fence=fence), POLICY)
    assert decision.move is Move.HOLD
    assert reasons(decision) == [HoldReason.VIEW_COLD, HoldReason.BUDGET_SPENT]
    assert decision.why == (
        "m1 began to watch h1 too recently to judge; "
        "1 of 1 fences in the last 300 s are spent in cluster c1"
    )


@given(
    answers=st.booleans(),
    readings=st.lists(st.sampled_from(PowerReading), max_size=3),
    armed=st.booleans(),
    own_host=st.booleans(),
    warm=st.booleans(),
)
def test_nothing_moves_without_life_proof_or_a_free_guard(
    answers: bool, readings: list[PowerReading], armed: bool, own_host: bool, warm: bool
) -> None:
    fence = fence_facts(vote(warm=warm), armed=armed, own_host=own_host, devices=len(readings))
    facts = recovery_facts(*readings, answers=answers, fence=fence)
    move = decide(facts, POLICY).move
    proven = readings != [] and set(readings) == {OFF}
    allowed = not answers and armed and not own_host
    assert (move is Move.RETURN) is answers
    assert (move is Move.ACCEPT) is (allowed and proven)
    assert (move is Move.FENCE) is (allowed and not proven and warm and readings != [])


def test_not_even_a_reading_of_off_goes_on_against_a_monitor_that_hears_the_host() -> None:
    fence = fence_facts(vote("m1", silent=False), vote("m2"))
    decision = decide(recovery_facts(OFF, fence=fence), POLICY)
    assert (decision.move, reasons(decision)) == (Move.HOLD, [HoldReason.VOTES_DISAGREE])
    assert decision.why == "h1 still answers m1, and is silent to m2"

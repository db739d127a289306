"""Which readings of a host's fence devices prove it off."""

from collections.abc import Sequence
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.inventory import FenceDevice, PowerReading
from domain.profiles import Profile, policy_for
from domain.recovery import Move, decide
from domain.topology import proven_level, survives_power_loss
from tests.unit.domain.builders import OFF, ON, UNKNOWN, fence_facts, recovery_facts, vote

pytestmark = pytest.mark.unit

Readings = tuple[tuple[int, PowerReading], ...]
CAREFUL = policy_for(Profile.CAREFUL)


@pytest.mark.parametrize(
    ("readings", "level"),
    [
        ((), None),
        (((1, OFF),), 1),
        (((3, OFF),), 3),
        (((1, OFF), (1, OFF)), 1),
        (((1, OFF), (1, UNKNOWN)), None),
        (((1, UNKNOWN), (2, OFF), (2, OFF)), 2),
        (((1, UNKNOWN), (2, OFF), (2, UNKNOWN)), None),
        (((1, OFF), (2, UNKNOWN)), 1),
        (((1, OFF), (2, ON)), None),
        (((1, ON), (2, OFF), (2, OFF)), None),
    ],
    ids=str,
)
def test_a_whole_level_that_reads_off_proves_it_unless_any_device_reads_on(
    readings: Readings, level: int | None
) -> None:
    assert proven_level(readings) == level


@pytest.mark.parametrize(
    ("readings", "level"),
    [
        (((1, OFF), (2, UNKNOWN)), None),
        (((1, OFF), (2, OFF)), 1),
        (((1, OFF), (1, OFF)), 1),
        (((1, UNKNOWN), (2, OFF), (2, OFF)), 2),
    ],
    ids=str,
)
def test_two_proofs_are_two_devices_that_read_off(readings: Readings, level: int | None) -> None:
    assert proven_level(readings, proofs=2) == level


WORDS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(PowerReading)), max_size=6)


@given(readings=WORDS, proofs=st.integers(1, 2))
def test_a_proof_never_rests_on_less_than_a_level_nor_stands_against_a_reading_of_on(
    readings: list[tuple[int, PowerReading]], proofs: int
) -> None:
    level = proven_level(readings, proofs)
    if level is None:
        return
    here = {word for at, word in readings if at == level}
    assert (here, ON in dict.fromkeys(word for _at, word in readings)) == ({OFF}, False)
    assert sum(word is OFF for _at, word in readings) >= proofs


@given(readings=WORDS)
def test_devices_of_one_level_prove_it_only_all_together_as_before_there_were_levels(
    readings: list[tuple[int, PowerReading]],
) -> None:
    flat = [(1, word) for _level, word in readings]
    together = bool(flat) and all(word is OFF for _level, word in flat)
    assert (proven_level(flat) is not None) is together


@pytest.mark.parametrize(
    ("readings", "why"),
    [
        (((1, OFF), (2, OFF)), "2 of 2 power devices read off"),
        (((1, UNKNOWN), (2, OFF)), "1 of 2 power devices read off, all of level 2 among them"),
    ],
    ids=str,
)
def test_a_recovery_accepts_a_level_that_reads_off(readings: Readings, why: str) -> None:
    decision = decide(recovery_facts(*readings), policy_for(Profile.BALANCED))
    assert (decision.move, decision.why) == (Move.ACCEPT, why)


@pytest.mark.parametrize("readings", [((1, OFF), (2, ON)), ((1, OFF), (1, UNKNOWN), (2, UNKNOWN))])
def test_a_recovery_fences_what_is_contradicted_or_not_whole(
    readings: Sequence[tuple[int, PowerReading]],
) -> None:
    assert decide(recovery_facts(*readings), policy_for(Profile.BALANCED)).move is Move.FENCE


def test_a_careful_recovery_fetches_its_second_proof_from_the_next_level() -> None:
    facts = recovery_facts((1, OFF), (2, UNKNOWN))
    assert decide(facts, CAREFUL).move is Move.FENCE
    assert decide(recovery_facts((1, OFF), (2, OFF)), CAREFUL).move is Move.ACCEPT


def test_a_careful_recovery_of_a_host_with_one_device_says_what_is_missing() -> None:
    decision = decide(recovery_facts(OFF, fence=fence_facts(vote(), devices=1)), CAREFUL)
    assert (decision.move, decision.held[0].reason) == (Move.HOLD, "PROOFS_MISSING")


def fed(level: int, *, shares: bool) -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name="d",
        agent="fence_x",
        options={},
        level=level,
        shares_power=shares,
    )


@pytest.mark.parametrize(
    ("devices", "proofs", "survives"),
    [
        ((), 1, False),
        ((fed(1, shares=True),), 1, False),
        ((fed(1, shares=False),), 1, True),
        ((fed(1, shares=True), fed(1, shares=False)), 1, False),
        ((fed(1, shares=True), fed(2, shares=False)), 1, True),
        ((fed(1, shares=True), fed(2, shares=False)), 2, False),
        ((fed(1, shares=False), fed(2, shares=False)), 2, True),
    ],
    ids=["none", "bmc", "own supply", "half a level", "second level", "careful", "careful, two"],
)
def test_a_power_loss_is_survived_by_a_whole_level_with_supplies_of_its_own(
    devices: tuple[FenceDevice, ...], proofs: int, survives: bool
) -> None:
    assert survives_power_loss(devices, proofs) is survives


def test_a_device_shares_its_hosts_power_until_somebody_says_otherwise() -> None:
    plain = fed(1, shares=True)
    assert FenceDevice(**plain.model_dump()).shares_power is True

"""When the door of a host that is held to be dead speaks against its certificate."""

import pytest

from domain.doors import KNOCK, Meaning, meaning, shows_life, was_silent
from domain.hosts import NEXT, HostEvent
from domain.inventory import HostState, PowerReading
from domain.readings import Knock
from tests.unit.domain.builders import OFF, ON, UNKNOWN

pytestmark = pytest.mark.unit

OPEN, REFUSED, ANSWERS, SILENT = Knock.OPEN, Knock.REFUSED, Knock.ANSWERS, Knock.SILENT
H1 = "qemu+ssh://h1/system"
ALIVE, SWITCHED_ON = Meaning.ALIVE, Meaning.SWITCHED_ON
NOTHING, UNTOLD = Meaning.NOTHING, Meaning.UNTOLD


@pytest.mark.parametrize(
    ("before", "words", "after", "means"),
    [
        # The power reads off between two signs of life: that is the contradiction.
        (OPEN, ((1, OFF),), OPEN, ALIVE),
        (REFUSED, ((1, OFF),), REFUSED, ALIVE),
        (ANSWERS, ((1, OFF),), ANSWERS, ALIVE),
        (OPEN, ((1, OFF),), REFUSED, ALIVE),
        (OPEN, ((1, UNKNOWN), (2, OFF), (2, OFF)), OPEN, ALIVE),
        # Somebody has switched it on: the door is a new boot's.
        (OPEN, ((1, ON),), OPEN, SWITCHED_ON),
        (OPEN, ((1, OFF), (2, ON)), OPEN, SWITCHED_ON),
        (OPEN, ((1, UNKNOWN), (2, ON)), OPEN, SWITCHED_ON),
        # Nobody tells whether somebody has, as after a person's word for want of an answer.
        (OPEN, (), OPEN, UNTOLD),
        (OPEN, ((1, UNKNOWN),), OPEN, UNTOLD),
        (OPEN, ((1, OFF), (1, UNKNOWN)), OPEN, UNTOLD),
        # It went off while it was looked at, or never showed life.
        (OPEN, ((1, OFF),), SILENT, NOTHING),
        (OPEN, ((1, OFF),), None, NOTHING),
        (SILENT, ((1, OFF),), OPEN, NOTHING),
        (None, ((1, OFF),), OPEN, NOTHING),
        (SILENT, ((1, ON),), SILENT, NOTHING),
    ],
)
def test_a_door_speaks_against_a_certificate_only_while_the_power_reads_off(
    before: Knock | None,
    words: tuple[tuple[int, PowerReading], ...],
    after: Knock | None,
    means: Meaning,
) -> None:
    assert meaning(before, words, after) is means


@pytest.mark.parametrize("knock", [None, *Knock])
def test_all_that_comes_back_from_a_door_but_silence_is_life(knock: Knock | None) -> None:
    assert shows_life(knock) is (knock in {OPEN, REFUSED, ANSWERS})


@pytest.mark.parametrize(
    ("evidence", "silent"),
    [
        ([{"kind": KNOCK, "detail": H1}], True),
        ([{"kind": "power_reading", "detail": ""}, {"kind": KNOCK, "detail": H1}], True),
        ([{"kind": KNOCK, "detail": "qemu+ssh://spare/system"}], False),
        ([{"kind": KNOCK}], False),  # from before the address was kept
        ([{"kind": "power_reading", "detail": H1}], False),
        ([], False),
    ],
)
def test_only_the_door_that_was_silent_can_contradict(
    evidence: list[dict[str, str]], silent: bool
) -> None:
    assert was_silent(evidence, H1) is silent


def test_a_host_comes_to_be_down_by_a_proof_alone_and_leaves_it_to_be_switched_on() -> None:
    """So nothing of the engine's has switched a host on that is `down` since it was proven off."""
    down = HostState.DOWN
    into = {e for s, row in NEXT.items() for e, to in row.items() if to is down and s is not down}
    assert into == {HostEvent.PROVEN_OFF}
    assert NEXT[down][HostEvent.ACTIVATE] is HostState.RECONCILING

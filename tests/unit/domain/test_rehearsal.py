"""What an off and on has shown: only a host that fell silent and came back anew was cut."""

import pytest

from domain.rehearsal import LevelOff, Rehearsed, sentence, verdict

pytestmark = pytest.mark.unit

SILENT = LevelOff(level=1, read_off=True, silent=True)
HEARD = LevelOff(level=1, read_off=True, silent=False)
NOT_OFF = LevelOff(level=1, read_off=False, why="not within 10 s")


@pytest.mark.parametrize(
    ("off", "rebooted", "shown"),
    [
        (SILENT, True, Rehearsed.PROVEN),
        (SILENT, False, Rehearsed.OTHER),  # its network was away, its power was not
        (HEARD, True, Rehearsed.OTHER),
        (HEARD, False, Rehearsed.OTHER),
        (NOT_OFF, True, Rehearsed.FAILED),
        (NOT_OFF, False, Rehearsed.FAILED),
        (None, True, Rehearsed.FAILED),
    ],
)
def test_a_level_is_proven_by_silence_and_a_new_boot_together(
    off: LevelOff | None, rebooted: bool, shown: Rehearsed
) -> None:
    assert verdict(off, rebooted=rebooted) is shown


def test_what_was_shown_is_said_with_the_devices_names() -> None:
    one, two = ("bmc",), ("pdu-a", "pdu-b")
    assert sentence(1, one, Rehearsed.PROVEN, SILENT) == "level 1 (bmc) cuts this host"
    assert sentence(1, one, Rehearsed.OTHER, HEARD) == (
        "the host kept answering while level 1 (bmc) read off: this device cuts another machine"
    )
    assert "kept running while level 2 (pdu-a, pdu-b) read off: one of these devices" in (
        sentence(2, two, Rehearsed.OTHER, SILENT)
    )
    assert sentence(1, one, Rehearsed.FAILED, NOT_OFF).endswith("did not read off: not within 10 s")
    assert sentence(1, one, Rehearsed.FAILED, None).endswith("how its cut ended is not known")

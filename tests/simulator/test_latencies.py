"""What the simulator draws is held against what was measured in the lab; what differs says why."""

import pytest
from pydantic import ValidationError

from benchmarks.latencies import HOW, SAMPLES, rows_of
from benchmarks.latency_rounds import Watch
from simulator.fleet.server import BOOT_S
from simulator.latencies import FILE, Measured, Table, table
from simulator.scenarios.timeline import REBOOT_S
from simulator.world.latency import (
    GUEST_STOP_S,
    LIBVIRTD_START_S,
    MOVE_S,
    SHORT,
    USUAL,
    Call,
    Range,
)

pytestmark = pytest.mark.unit

PART_OF_A_MOVE = {Call.MIGRATE}
"""It begins the move and is over: to the lab's caller both are one call."""

FOLLOWS: dict[str, Range] = {
    "guest_stop": GUEST_STOP_S,
    "move": MOVE_S,
    "libvirtd_start": LIBVIRTD_START_S,
    "host_boot": (BOOT_S, REBOOT_S),
}
DRAWN: dict[str, Range] = FOLLOWS | {
    call.value: USUAL.get(call, SHORT) for call in Call if call not in PART_OF_A_MOVE
}


LONGER = {
    "boot_mark": "one look at a network; drawn as every other short call",
    "guest_stop": "the lab's guest is busybox, with nothing to write back",
    "host_boot": "a host of the lab has no firmware, and its kernel runs already",
}
"""What takes longer on purpose than anything in the lab, each with the reason."""


def usual_s(action: str) -> float:
    """The median of what the simulator draws, which draws evenly."""
    return sum(DRAWN[action]) / 2


def test_all_that_is_drawn_was_measured_often_enough_and_nothing_was_measured_for_nobody() -> None:
    assert {row.action for row in table().rows} == set(DRAWN)
    assert all(row.samples >= SAMPLES for row in table().rows)
    assert {row.how for row in table().rows if row.action in HOW} == set(HOW.values())


@pytest.mark.parametrize("action", DRAWN)
def test_nothing_is_usually_quicker_than_half_of_the_labs_median(action: str) -> None:
    assert usual_s(action) >= min(row.p50_s for row in table().of(action)) / 2


def test_what_is_usually_far_beyond_the_lab_is_named_with_its_reason_and_nothing_else_is() -> None:
    worst = {action: max(row.p95_s for row in table().of(action)) for action in DRAWN}
    assert {action for action in DRAWN if usual_s(action) > 3 * worst[action]} == set(LONGER)
    assert all(LONGER.values())


@pytest.mark.parametrize("action", ["bmc_read", "bmc_off", "bmc_on"])
def test_a_power_controller_was_measured_over_ipmi_and_over_redfish(action: str) -> None:
    assert [row.over for row in table().of(action)] == ["ipmi", "redfish"]


def test_the_figures_of_a_row_are_in_order() -> None:
    assert all(row.p50_s <= row.p95_s <= row.max_s for row in table().rows)


def test_the_table_reads_back_as_it_is_written_and_takes_no_unknown_field() -> None:
    assert FILE.read_text() == table().model_dump_json(indent=1) + "\n"
    row = table().rows[0].model_dump()
    with pytest.raises(ValidationError):
        Measured.model_validate(row | {"p99_s": 1.0})
    with pytest.raises(ValidationError):
        Measured.model_validate(row | {"samples": 0})
    with pytest.raises(ValidationError):
        Table.model_validate(table().model_dump() | {"host": "elsewhere"})


def test_a_row_is_made_of_the_seconds_that_were_watched_and_a_call_that_fails_is_none() -> None:
    watch = Watch()
    watch.took_s["bmc_off", "ipmi"] = [0.1] * 10 + [0.2] * 9 + [0.9]
    with pytest.raises(RuntimeError), watch.on("poll"):
        raise RuntimeError
    with watch.on("knock"):
        pass
    off, knock = rows_of(watch)
    assert (off.action, off.over, off.samples) == ("bmc_off", "ipmi", 20)
    assert (off.p50_s, off.p95_s, off.max_s) == (0.1, 0.2, 0.9)
    assert (knock.action, knock.samples) == ("knock", 1)

"""When a host's lease on shared storage proves it dead, and when it only seems to."""

from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.storage_lease import (
    GAP_S,
    KILL_S,
    WATCHDOG_TURNS,
    LeaseFinding,
    LeaseReading,
    LeaseRecord,
    LeaseVerdict,
    dead_after_s,
    judge,
    lapsed_after_s,
    watched,
)
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

HOST, OTHER = id_of("h1"), id_of("h2")
LEASE_S, WATCHDOG_S = 80.0, 60.0
RECORD = LeaseRecord(host_id=HOST, epoch=3, sequence=7, lease_s=LEASE_S, watchdog_s=WATCHDOG_S)
UNATTESTED = RECORD.model_copy(update={"watchdog_s": None})
NEEDED_S = dead_after_s(LEASE_S, WATCHDOG_S)
LAPSED_S = lapsed_after_s(LEASE_S)
PROOF, SUPPORTING, NONE = LeaseVerdict.PROOF, LeaseVerdict.SUPPORTING, LeaseVerdict.NONE


def read(at_s: float, record: LeaseRecord | None = RECORD, **changes: Any) -> LeaseReading:
    """One read that takes no time."""
    fields = {"began_s": at_s, "ended_s": at_s, "record": record, "uncached": True}
    return LeaseReading(**(fields | changes))


def looked(until_s: float, record: LeaseRecord = RECORD, from_s: float = 0.0) -> list[LeaseReading]:
    """A read every ten seconds, and one at the end."""
    count = int((until_s - from_s) // 10)
    early = [read(from_s + 10 * number, record) for number in range(count + 1)]
    return early if early[-1].ended_s == until_s else [*early, read(until_s, record)]


def found(readings: list[LeaseReading], host: UUID = HOST, epoch: int = 3) -> LeaseFinding:
    return judge(host, epoch, watched(readings))


def renewed(record: LeaseRecord, **changes: Any) -> LeaseRecord:
    return record.model_copy(update=changes or {"sequence": record.sequence + 1})


def test_what_is_needed_is_lease_two_watchdog_timeouts_and_the_kill_with_both_clocks_wrong() -> (
    None
):
    true_s = 80.0 + 2 * 60.0 + 10.0
    assert (WATCHDOG_TURNS, KILL_S) == (2, 10.0)
    # The host's clock runs 10.2 % slow, so that it takes this long; the observer's as much fast.
    assert pytest.approx(true_s / 0.898 * 1.102) == NEEDED_S
    assert pytest.approx(80.0 / 0.898 * 1.102) == LAPSED_S


WHOLE, PAST = looked(NEEDED_S + 1), looked(LAPSED_S + 1)


@pytest.mark.parametrize(
    ("readings", "verdict", "code"),
    [
        ([], NONE, "LEASE_UNREAD"),
        ([read(0, None)], NONE, "LEASE_UNREAD"),
        ([read(0)], NONE, "LEASE_RUNS"),
        (looked(LAPSED_S - 1), NONE, "LEASE_RUNS"),
        (PAST, SUPPORTING, "WATCHDOG_MAY_STILL_RUN"),
        (looked(NEEDED_S - 1), SUPPORTING, "WATCHDOG_MAY_STILL_RUN"),
        (WHOLE, PROOF, "LEASE_EXPIRED"),
        (looked(LAPSED_S - 1, UNATTESTED), NONE, "LEASE_RUNS"),
        (looked(LAPSED_S + 1, UNATTESTED), SUPPORTING, "WATCHDOG_NOT_ATTESTED"),
        (looked(1e4, UNATTESTED), SUPPORTING, "WATCHDOG_NOT_ATTESTED"),
        (looked(1e4, renewed(RECORD, host_id=OTHER)), NONE, "LEASE_OF_ANOTHER"),
        (looked(1e4, renewed(RECORD, epoch=2)), NONE, "LEASE_OF_ANOTHER"),
        (looked(1e4, renewed(RECORD, epoch=4)), NONE, "LEASE_OF_ANOTHER"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD))], NONE, "LEASE_RENEWED"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD, sequence=6))], NONE, "LEASE_RENEWED"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD, watchdog_s=None))], NONE, "LEASE_RENEWED"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD, lease_s=10.0))], NONE, "LEASE_RENEWED"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD, epoch=4))], NONE, "LEASE_OF_ANOTHER"),
        ([*WHOLE, read(NEEDED_S + 2, renewed(RECORD), uncached=False)], NONE, "LEASE_RENEWED"),
        ([*WHOLE, read(NEEDED_S + 2, None)], PROOF, "LEASE_EXPIRED"),
        ([*WHOLE, read(NEEDED_S + 2 + GAP_S)], NONE, "LEASE_RUNS"),
        ([one.model_copy(update={"uncached": False}) for one in WHOLE], NONE, "LEASE_UNREAD"),
        ([WHOLE[0], WHOLE[-1]], NONE, "LEASE_RUNS"),
    ],
)
def test_a_lease_proves_a_death_only_if_everything_fits(
    readings: list[LeaseReading], verdict: LeaseVerdict, code: str
) -> None:
    finding = found(readings)
    assert (finding.verdict, finding.code) == (verdict, code)
    assert finding.why
    assert finding.next_step


def test_the_count_runs_from_the_end_of_the_first_read_to_the_start_of_the_last() -> None:
    slow = [read(0.0, ended_s=9.0), read(12.0), read(20.0, ended_s=30.0)]
    count = found(slow).count
    assert count is not None
    assert (count.unchanged_s, count.reads) == (11.0, 3)


def test_a_proof_says_how_long_it_was_and_how_long_it_had_to_be() -> None:
    finding = found(WHOLE)
    assert finding.why == (
        f"the lease of 80 s was unchanged (sequence 7) for {NEEDED_S + 1:.1f} s over {len(WHOLE)} "
        f"reads; its watchdog of 60 s has reset it {NEEDED_S:.1f} s after the last write"
    )
    assert finding.count is not None
    assert finding.count.proves


def test_why_the_count_began_anew_is_told() -> None:
    assert "sequence 7 became 8" in found([*WHOLE, read(NEEDED_S + 2, renewed(RECORD))]).why
    gap = found([read(0), read(GAP_S + 0.5)])
    assert "no good read for 20.5 s, more than 20 s" in gap.why
    assert "before the one before it had ended" in found([read(5, ended_s=9), read(6)]).why


def test_a_read_that_ends_before_it_began_or_at_no_time_is_none() -> None:
    for times in ((2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ValidationError):
            LeaseReading(began_s=times[0], ended_s=times[1], record=RECORD, uncached=True)
    for broken in ({"lease_s": 0}, {"lease_s": float("nan")}, {"watchdog_s": -1}):
        with pytest.raises(ValidationError):
            LeaseRecord(**(RECORD.model_dump() | broken))


@st.composite
def series(draw: st.DrawFn) -> list[LeaseReading]:
    """Reads of a lease that is renewed, unread, cached, replaced or left alone, at any pace."""
    readings, now = [], draw(st.floats(-1e6, 1e6))
    record = draw(st.sampled_from([RECORD, renewed(RECORD, lease_s=1.0, watchdog_s=1.0)]))
    for _ in range(draw(st.integers(0, 30))):
        now += draw(st.floats(0, GAP_S * 0.6) | st.floats(0, GAP_S * 3))
        ended = now + draw(st.just(0.0) | st.floats(0, GAP_S))
        match draw(st.sampled_from("............fcrw")):
            case "f":
                shown, uncached = None, True
            case "c":
                shown, uncached = record, False
            case "r":
                record = renewed(record)
                shown, uncached = record, True
            case "w":
                record = renewed(record, watchdog_s=draw(st.sampled_from([None, 1.0, 60.0])))
                shown, uncached = record, True
            case _:
                shown, uncached = record, True
        readings.append(read(now, shown, ended_s=ended, uncached=uncached))
        now = draw(st.sampled_from([ended, ended, ended, now]))
    return readings


def proven_slowly(readings: list[LeaseReading], slack_s: float) -> bool:
    """Whether any stretch of reads up to the last good one fits the rules, told the simple way."""
    good = [n for n, one in enumerate(readings) if one.record is not None and one.uncached]
    for first in good:
        stretch = [readings[n] for n in good if n >= first]
        shown = {one.record for one in readings[first:] if one.record is not None}
        record = stretch[0].record
        whole = all(
            later.ended_s - one.ended_s <= GAP_S and later.began_s >= one.ended_s
            for one, later in pairwise(stretch)
        )
        if len(shown) != 1 or not whole or record is None or record.watchdog_s is None:
            continue
        needed_s = dead_after_s(record.lease_s, record.watchdog_s)
        if stretch[-1].began_s - stretch[0].ended_s >= needed_s + slack_s:
            return True
    return False


@given(series())
def test_the_verdict_is_that_of_the_rules_told_another_way(readings: list[LeaseReading]) -> None:
    proof = found(readings).verdict is PROOF
    if proven_slowly(readings, 0.001):  # The count is shown in whole milliseconds.
        assert proof
    if not proven_slowly(readings, 0.0):
        assert not proof


def test_proofs_are_among_the_series_that_are_drawn() -> None:
    unshrunk = settings(phases=[Phase.generate], max_examples=1000)
    assert find(series(), lambda one: found(one).verdict is PROOF, settings=unshrunk)


@given(
    st.floats(0.1, 300),
    st.floats(0.1, 120),
    st.floats(0.001, 0.999),
    st.floats(0, 15),
)
def test_it_is_never_proof_sooner_than_needed_and_is_one_then(
    lease_s: float, watchdog_s: float, part: float, slow_s: float
) -> None:
    record = renewed(RECORD, lease_s=lease_s, watchdog_s=watchdog_s)
    needed_s = dead_after_s(lease_s, watchdog_s)
    early_s = slow_s + needed_s * part
    readings = [read(0.0, record, ended_s=slow_s), *looked(early_s, record, slow_s)]
    assert found(readings).verdict is not PROOF
    readings += looked(slow_s + needed_s + 0.01, record, early_s)
    assert found(readings).verdict is PROOF
    assert needed_s > lease_s + 2 * watchdog_s + 10


@given(st.floats(0, 500), st.floats(GAP_S + 0.001, 1e5))
def test_a_gap_is_never_counted(before_s: float, gap_s: float) -> None:
    again = before_s + gap_s
    finding = found([*looked(before_s), *looked(again + 5, RECORD, again)])
    assert finding.verdict is NONE
    assert finding.count is not None
    assert finding.count.unchanged_s <= 5


@given(
    st.integers(0, len(WHOLE) - 1),
    st.sampled_from([{"sequence": 8}, {"sequence": 6}, {"watchdog_s": 1.0}, {"lease_s": 1.0}]),
    st.booleans(),
)
def test_any_other_record_in_between_is_a_sign_of_life(
    where: int, change: dict[str, Any], uncached: bool
) -> None:
    odd = WHOLE[where].model_copy(
        update={"record": renewed(RECORD, **change), "uncached": uncached}
    )
    readings = [*WHOLE[: where + 1], odd, *WHOLE[where + 1 :]]
    finding = found(readings)
    assert finding.verdict is not PROOF
    if finding.count is not None:
        assert finding.count.unchanged_s <= WHOLE[-1].began_s - WHOLE[where].ended_s


@given(series())
def test_without_a_watchdog_nothing_is_ever_proof(readings: list[LeaseReading]) -> None:
    bare = [
        one.model_copy(update={"record": one.record and renewed(one.record, watchdog_s=None)})
        for one in readings
    ]
    assert found(bare).verdict is not PROOF


@given(series())
def test_the_lease_of_another_host_or_epoch_says_nothing(readings: list[LeaseReading]) -> None:
    assert found(readings, host=OTHER).verdict is NONE
    assert found(readings, epoch=4).verdict is NONE

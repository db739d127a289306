"""Verdicts poll by poll. A timeline is a list of (time, how the poll ended) of one monitor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.inventory import PowerReading
from domain.liveness import (
    PollResult,
    Verdict,
    Watch,
    after_knock,
    after_poll,
    after_power_reading,
    for_next_poll,
    judgeable,
    wants_recovery,
)
from domain.profiles import TIMINGS, Profile, Timing
from domain.readings import Knock
from tests.unit.domain.builders import OFF, ON, UNKNOWN

pytestmark = pytest.mark.unit

ANSWERED, REFUSED, SILENT = PollResult.ANSWERED, PollResult.REFUSED, PollResult.SILENT
UP, CONNECTING, DEAD = Verdict.UP, Verdict.CONNECTING, Verdict.NON_RESPONSIVE
START = Watch(heard_at_s=1000.0)
LIMITS = {Profile.CLASSIC: 60, Profile.BALANCED: 15, Profile.FAST: 4, Profile.CAREFUL: 120}
POLLS = {Profile.CLASSIC: 2, Profile.BALANCED: 2, Profile.FAST: 1, Profile.CAREFUL: 5}
each_profile = pytest.mark.parametrize("profile", Profile)


def play(timing: Timing, *polls: tuple[float, PollResult], start: Watch = START) -> list[Watch]:
    """The watch after each poll; times count from the start of the timeline."""
    watches, watch = [], start
    for at_s, result in polls:
        watch = after_poll(watch, result, START.heard_at_s + at_s, timing)
        watches.append(watch)
    return watches


def silence(profile: Profile, count: int) -> list[Watch]:
    """Polls without an answer, one each poll interval."""
    step = POLLS[profile]
    return play(TIMINGS[profile], *((step * n, SILENT) for n in range(1, count + 1)))


def verdicts(watches: list[Watch]) -> list[Verdict]:
    return [watch.verdict for watch in watches]


@each_profile
def test_the_first_miss_is_connecting_in_every_profile(profile: Profile) -> None:
    (watch,) = silence(profile, 1)
    assert (watch.verdict, watch.misses) == (CONNECTING, 1)
    assert not wants_recovery(watch)


@pytest.mark.parametrize(
    ("profile", "misses"),
    [(Profile.CLASSIC, 30), (Profile.BALANCED, 8), (Profile.FAST, 4), (Profile.CAREFUL, 24)],
)
def test_silence_is_believed_at_a_poll_that_is_not_before_the_limit(
    profile: Profile, misses: int
) -> None:
    timeline = verdicts(silence(profile, misses + 1))
    assert timeline == [CONNECTING] * (misses - 1) + [DEAD] * 2


@each_profile
def test_the_limit_itself_is_long_enough_and_anything_less_is_not(profile: Profile) -> None:
    limit, step = LIMITS[profile], POLLS[profile]
    regular = [(float(at), SILENT) for at in range(step, limit, step)]
    *before, last = play(TIMINGS[profile], *regular, (limit - 0.001, SILENT))
    assert set(verdicts([*before, last])) == {CONNECTING}
    *before, last = play(TIMINGS[profile], *regular, (float(limit), SILENT))
    assert set(verdicts(before)) == {CONNECTING}
    assert (last.verdict, last.silent_s) == (DEAD, limit)
    assert wants_recovery(last)


@pytest.mark.parametrize("answer_took_s", [0.0, 0.01, 0.05, 0.09])
@each_profile
def test_silence_is_told_when_the_limit_is_reached_not_up_to_a_round_later(
    profile: Profile, answer_took_s: float
) -> None:
    timing, watch = TIMINGS[profile], Watch(heard_at_s=answer_took_s, looked_at_s=answer_took_s)
    due_s, now_s, longer = 0.0, answer_took_s, 0
    while not wants_recovery(watch):
        due_s = max(due_s + timing.poll_s, now_s)
        poll = for_next_poll(watch, due_s, timing)
        longer += poll.poll_deadline_s > timing.poll_deadline_s
        now_s = due_s + poll.poll_deadline_s
        watch = after_poll(watch, SILENT, now_s, poll)
    assert longer <= 1
    assert LIMITS[profile] <= now_s - answer_took_s <= LIMITS[profile] + timing.poll_deadline_s
    if profile in (Profile.BALANCED, Profile.FAST):
        assert now_s - answer_took_s == pytest.approx(LIMITS[profile], abs=0.002)


@each_profile
def test_a_poll_far_from_the_limit_and_one_beyond_it_keep_the_profiles_deadline(
    profile: Profile,
) -> None:
    timing = TIMINGS[profile]
    assert for_next_poll(START, START.heard_at_s, timing) is timing
    dead = silence(profile, LIMITS[profile])[-1]
    assert for_next_poll(dead, START.heard_at_s + 3600, timing) is timing


@each_profile
def test_a_single_answer_makes_all_silence_forgotten(profile: Profile) -> None:
    dead = silence(profile, LIMITS[profile])[-1]
    assert dead.verdict is DEAD
    at_s = 1000.0 + POLLS[profile] * (LIMITS[profile] + 1)
    watch = after_poll(dead, ANSWERED, at_s, TIMINGS[profile])
    assert watch == Watch(verdict=UP, heard_at_s=at_s, looked_at_s=at_s)
    assert (watch.misses, watch.first_miss_s, watch.silent_s) == (0, None, 0)


def test_a_host_that_answers_each_eighth_poll_never_dies_under_balanced() -> None:
    polls = [(2.0 * n, SILENT if n % 8 else ANSWERED) for n in range(1, 200)]
    watches = play(TIMINGS[Profile.BALANCED], *polls)
    assert set(verdicts(watches)) == {UP, CONNECTING}
    assert max(watch.misses for watch in watches) == 7


@each_profile
def test_a_refused_port_is_a_miss_but_never_grows_silence(profile: Profile) -> None:
    step = POLLS[profile]
    polls = [(float(step * n), REFUSED) for n in range(1, 200)]
    watches = play(TIMINGS[profile], *polls)
    assert set(verdicts(watches)) == {CONNECTING}
    assert {watch.silent_s for watch in watches} == {0}
    assert (watches[-1].misses, watches[-1].heard_at_s) == (199, 1000 + 199 * step)


def test_silence_counts_from_the_last_refusal() -> None:
    polls = [(2.0, SILENT), (4.0, SILENT), (6.0, REFUSED)]
    silent = [(6.0 + 2 * n, SILENT) for n in range(1, 9)]
    timeline = verdicts(play(TIMINGS[Profile.BALANCED], *polls, *silent))
    assert timeline == [CONNECTING] * 10 + [DEAD]


def test_the_first_miss_keeps_its_time_while_more_follow() -> None:
    watches = play(TIMINGS[Profile.BALANCED], (2, SILENT), (4, REFUSED), (6, SILENT))
    assert [watch.first_miss_s for watch in watches] == [1002, 1002, 1002]
    assert [watch.misses for watch in watches] == [1, 2, 3]


@each_profile
def test_a_monitor_that_was_stopped_itself_has_seen_one_miss(profile: Profile) -> None:
    timing = TIMINGS[profile]
    one_poll = timing.poll_s + timing.poll_deadline_s
    first, second = play(timing, (3600, SILENT), (7200, SILENT))
    assert (first.verdict, first.silent_s) == (CONNECTING, one_poll)
    assert second.silent_s == 2 * one_poll


@each_profile
def test_a_reading_of_off_ends_the_waiting_at_the_first_miss(profile: Profile) -> None:
    (missed,) = silence(profile, 1)
    watch = after_power_reading(missed, OFF)
    assert watch.verdict is Verdict.POWERED_OFF
    assert wants_recovery(watch)
    assert watch.model_copy(update={"verdict": missed.verdict}) == missed


@pytest.mark.parametrize("reading", [ON, UNKNOWN])
@pytest.mark.parametrize("misses", [1, 7, 8])
def test_any_other_reading_changes_nothing(reading: PowerReading, misses: int) -> None:
    watch = silence(Profile.BALANCED, misses)[-1]
    assert after_power_reading(watch, reading) == watch


def test_a_reading_of_off_is_not_believed_while_the_host_answers() -> None:
    (answered,) = play(TIMINGS[Profile.BALANCED], (2, ANSWERED))
    assert after_power_reading(answered, OFF) == answered
    assert after_power_reading(START, OFF) == START


def test_a_reading_of_off_is_not_believed_while_the_kernel_refuses_the_port() -> None:
    refused = play(TIMINGS[Profile.BALANCED], (2, SILENT), (4, REFUSED))[-1]
    assert after_power_reading(refused, OFF) == refused
    silent_again = play(TIMINGS[Profile.BALANCED], (6, SILENT), start=refused)[-1]
    assert after_power_reading(silent_again, OFF).verdict is Verdict.POWERED_OFF


def test_a_host_that_was_never_heard_is_silent_from_now_on_and_may_read_off() -> None:
    now_s, later_s = 5.0, 5.000001  # the watch is made after the miss that it is made for
    watch = after_poll(Watch(heard_at_s=later_s), SILENT, now_s, TIMINGS[Profile.FAST])
    assert (watch.verdict, watch.silent_s) == (CONNECTING, 0)
    assert after_power_reading(watch, OFF).verdict is Verdict.POWERED_OFF


def test_a_host_that_answers_after_reading_off_is_up_again() -> None:
    off = after_power_reading(silence(Profile.BALANCED, 1)[-1], OFF)
    (watch,) = play(TIMINGS[Profile.BALANCED], (4, ANSWERED), start=off)
    assert (watch.verdict, wants_recovery(watch)) == (UP, False)


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [(UP, False), (CONNECTING, False), (DEAD, True), (Verdict.POWERED_OFF, True)],
)
def test_only_the_two_verdicts_of_failure_ask_for_a_recovery(
    verdict: Verdict, wanted: bool
) -> None:
    assert wants_recovery(Watch(verdict=verdict, heard_at_s=0)) is wanted


gaps = st.integers(min_value=1, max_value=600).map(float)
polls = st.lists(st.tuples(gaps, st.sampled_from(PollResult)), min_size=1, max_size=60)


@given(profile=st.sampled_from(Profile), timeline=polls)
def test_the_verdict_of_any_timeline_follows_from_its_trailing_silence(
    profile: Profile, timeline: list[tuple[float, PollResult]]
) -> None:
    timing, watch, now_s = TIMINGS[profile], START, START.heard_at_s
    for gap_s, result in timeline:
        now_s += gap_s
        watch = after_poll(watch, result, now_s, timing)
    believed = 0.0
    for gap_s, result in reversed(timeline):
        if result is not SILENT:
            break
        believed += min(gap_s, timing.poll_s + timing.poll_deadline_s)
    assert watch.silent_s == pytest.approx(believed)
    if timeline[-1][1] is ANSWERED:
        assert watch.verdict is UP
    # A float sum may fall on either side of the limit itself, which has tests of its own.
    elif abs(believed - timing.non_responsive_after_s) > 1e-6:
        assert watch.verdict is (DEAD if believed > timing.non_responsive_after_s else CONNECTING)


@pytest.mark.parametrize("door", [Knock.OPEN, Knock.REFUSED, Knock.ANSWERS])
def test_a_door_that_the_kernel_opens_ends_the_silence(door: Knock) -> None:
    silent = Watch(heard_at_s=0.0, verdict=Verdict.NON_RESPONSIVE, silent_s=20.0, misses=9)
    watch = after_knock(silent, door, 20.0)
    assert (watch.verdict, watch.silent_s, watch.heard_at_s) == (Verdict.CONNECTING, 0.0, 20.0)
    assert not wants_recovery(watch)


@pytest.mark.parametrize("door", [Knock.SILENT, None])
def test_a_silent_door_and_one_that_could_not_be_tried_change_nothing(door: Knock | None) -> None:
    silent = Watch(heard_at_s=0.0, verdict=Verdict.NON_RESPONSIVE, silent_s=20.0, misses=9)
    assert after_knock(silent, door, 20.0) == silent


def test_a_host_that_has_answered_meanwhile_is_not_put_back_by_its_door() -> None:
    up = Watch(heard_at_s=19.9)
    assert after_knock(up, Knock.OPEN, 20.0) == up


def test_what_was_heard_or_missed_for_long_enough_may_be_judged_and_nothing_else() -> None:
    timing = TIMINGS[Profile.BALANCED]
    assert not judgeable(None, answered=False), "it was not polled yet"
    watch = Watch(heard_at_s=0)
    missed_s = []
    for now_s in range(0, 40, 2):
        watch = after_poll(watch, PollResult.SILENT, now_s, timing)
        missed_s += [] if judgeable(watch, answered=False) else [now_s]
        assert judgeable(watch, answered=True), "it answered this monitor once"
    assert missed_s == [0, 2, 4, 6, 8, 10, 12, 14], "the limit is 15 s"


def test_a_kernel_that_shows_life_or_power_that_reads_off_makes_a_host_judgeable() -> None:
    timing = TIMINGS[Profile.BALANCED]
    refused = after_poll(Watch(heard_at_s=0), PollResult.REFUSED, 1, timing)
    silent = after_poll(Watch(heard_at_s=0), PollResult.SILENT, 1, timing)
    assert judgeable(refused, answered=False)
    assert not judgeable(silent, answered=False)
    assert judgeable(after_power_reading(silent, OFF), answered=False)


def test_a_monitor_that_stood_still_has_not_watched_meanwhile() -> None:
    timing = TIMINGS[Profile.BALANCED]
    watch = after_poll(Watch(heard_at_s=0), PollResult.SILENT, 1, timing)
    late = after_poll(watch, PollResult.SILENT, 3600, timing)
    assert not judgeable(late, answered=False)

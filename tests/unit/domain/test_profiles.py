"""The four shipped profiles, the policy that carries them, and what they predict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.liveness import ROUNDING_S, PollResult, Watch, after_poll, for_next_poll, wants_recovery
from domain.profiles import (
    LAB_OFF_S,
    LAB_PROOF_S,
    LAB_START_S,
    TIMINGS,
    Policy,
    Profile,
    Timing,
    policy_for,
    predict,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("profile", "poll_s", "limit_s", "proofs"),
    [
        (Profile.CLASSIC, 2, 60, 1),
        (Profile.BALANCED, 2, 15, 1),
        (Profile.FAST, 1, 4, 1),
        (Profile.CAREFUL, 5, 120, 2),
    ],
)
def test_a_profile_polls_waits_and_proves_as_promised(
    profile: Profile, poll_s: float, limit_s: float, proofs: int
) -> None:
    timing = TIMINGS[profile]
    assert (timing.poll_s, timing.non_responsive_after_s) == (poll_s, limit_s)
    assert timing.proofs_required == proofs


@pytest.mark.parametrize("profile", Profile)
def test_a_poll_ends_before_the_next_begins_and_one_miss_never_reaches_the_limit(
    profile: Profile,
) -> None:
    timing = TIMINGS[profile]
    assert timing.poll_deadline_s <= timing.poll_s
    assert timing.poll_s + timing.poll_deadline_s < timing.non_responsive_after_s


@pytest.mark.parametrize(
    ("profile", "power_cut_s", "isolation_s"),
    [
        (Profile.CLASSIC, 6.0, 67.0),
        (Profile.BALANCED, 5.0, 21.0),
        (Profile.FAST, 3.8, 8.8),
        (Profile.CAREFUL, 10.0, 131.0),
    ],
)
def test_a_profile_predicts_its_recovery_times(
    profile: Profile, power_cut_s: float, isolation_s: float
) -> None:
    prediction = predict(TIMINGS[profile])
    assert prediction.power_cut_s == pytest.approx(power_cut_s)
    assert prediction.isolation_s == pytest.approx(isolation_s)


def test_the_default_profile_promises_a_power_cut_within_ten_seconds() -> None:
    assert Policy().profile is Profile.BALANCED
    assert predict(Policy().timing).power_cut_s <= 10


def detected_after(timing: Timing) -> tuple[float, float]:
    """Seconds to the first miss and to `non_responsive`, when the fault follows an answer."""
    watch, due_s, now_s = Watch(heard_at_s=0, looked_at_s=0), 0.0, 0.0
    while not wants_recovery(watch):
        due_s = max(due_s + timing.poll_s, now_s)
        poll = for_next_poll(watch, due_s, timing)
        now_s = due_s + poll.poll_deadline_s
        watch = after_poll(watch, PollResult.SILENT, now_s, poll)
    assert watch.first_miss_s is not None
    assert watch.looked_at_s is not None
    return watch.first_miss_s, watch.looked_at_s


@given(
    poll_s=st.integers(min_value=1, max_value=10),
    deadline_share=st.sampled_from([0.25, 0.5, 1.0]),
    limit_polls=st.floats(min_value=3, max_value=150),
)
def test_the_liveness_rules_are_never_slower_than_predicted(
    poll_s: int, deadline_share: float, limit_polls: float
) -> None:
    limit_s = poll_s * limit_polls
    timing = Timing(
        poll_s=poll_s,
        poll_deadline_s=poll_s * deadline_share,
        non_responsive_after_s=limit_s,
    )
    first_miss_s, dead_s = detected_after(timing)
    prediction = predict(timing)
    assert first_miss_s + LAB_PROOF_S + LAB_START_S == pytest.approx(prediction.power_cut_s)
    assert limit_s <= dead_s
    voted_s = dead_s + timing.poll_s  # at the latest, see `predict`
    assert voted_s + LAB_OFF_S + LAB_START_S <= prediction.isolation_s + ROUNDING_S + 1e-9


@pytest.mark.parametrize("profile", Profile)
def test_the_policy_of_a_profile_carries_its_timing_and_the_first_day_guard(
    profile: Profile,
) -> None:
    policy = policy_for(profile)
    assert (policy.profile, policy.timing) == (profile, TIMINGS[profile])
    assert policy.fences_per_window == 1


def test_a_policy_changes_only_the_fields_it_is_told() -> None:
    policy = policy_for(Profile.FAST, stop_grace_s=1.5, fence_tries=7)
    assert (policy.stop_grace_s, policy.fence_tries) == (1.5, 7)
    same = policy.model_copy(update={"stop_grace_s": 60.0, "fence_tries": 3})
    assert same == policy_for(Profile.FAST)


@pytest.mark.parametrize("changes", [{"stop_grase_s": 1.0}, {"fence_tries": 1.5}])
def test_a_policy_refuses_misspelt_fields_and_broken_counts(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        policy_for(Profile.BALANCED, **changes)

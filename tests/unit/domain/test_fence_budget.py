"""How long a fence may take at most: each level, the tries of the last one, and the sum."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.inventory import FenceDevice
from domain.profiles import Policy
from domain.topology import FENCE_LIMIT_S, fence_budget
from workflows import options

pytestmark = pytest.mark.unit

POLICY = Policy(off_read_back_s=10, knock_s=0.5, fence_tries=3)


def device(
    level: int = 1, *, deadline_s: float = 10, delay_s: float = 0, retries: int = 0
) -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name="bmc",
        agent="fence_ipmilan",
        options={},
        deadline_s=deadline_s,
        level=level,
        delay_s=delay_s,
        retries=retries,
    )


def total_s(*devices: FenceDevice) -> float:
    return fence_budget(devices, POLICY).total_s


def test_a_host_without_devices_has_nothing_to_wait_for() -> None:
    assert (total_s(), fence_budget((), POLICY).levels) == (0, ())


def test_one_device_is_asked_cut_and_read_back_three_times_with_the_waits_between() -> None:
    once_s = (10 + 10) + (10 + 10 + 0.5)
    assert total_s(device()) == 3 * once_s + 2 * (0.5 + 1.0)


def test_devices_of_one_level_take_as_long_as_the_slowest_of_them() -> None:
    slow, quick = device(delay_s=2), device(deadline_s=1)
    assert total_s(slow, quick) == total_s(slow) == total_s(device()) + 3 * 2


def test_levels_follow_each_other_and_only_the_last_is_tried_again() -> None:
    once_s = (10 + 10) + (10 + 10 + 0.5)
    assert total_s(device(1), device(2)) == once_s + total_s(device(2))
    levels = fence_budget((device(4), device(2)), POLICY).levels
    assert [(level.level, level.tries) for level in levels] == [(2, 1), (4, 3)]


def test_a_retry_costs_a_deadline_for_the_question_the_cut_and_each_last_look() -> None:
    assert total_s(device(retries=2)) == total_s(device()) + 3 * (2 * 10) * 3


def test_the_default_device_alone_and_before_two_outlets_fits_the_default_limit() -> None:
    usual = fence_budget((device(1), device(2), device(2)), Policy())
    assert fence_budget((device(),), Policy()).total_s == 124.5
    assert usual.total_s == 165.0 < FENCE_LIMIT_S


DEVICES = st.lists(
    st.builds(
        device,
        st.integers(1, 9),
        deadline_s=st.floats(0.1, 300),
        delay_s=st.floats(0, 300),
        retries=st.integers(0, 9),
    ),
    max_size=5,
)


@given(devices=DEVICES)
def test_no_step_is_ended_before_the_time_that_a_whole_fence_may_take(
    devices: list[FenceDevice],
) -> None:
    budget = fence_budget(devices, POLICY)
    policy = POLICY.model_copy(update={"fence_limit_s": budget.total_s})
    for config in (options.fence(policy, "cut"), options.look(policy, "ask")):
        limit = config["start_to_close_timeout"]
        assert limit is not None
        assert limit.total_seconds() >= round(budget.total_s, 3) - 0.001
        assert all(limit.total_seconds() + 0.001 >= level.off_s for level in budget.levels)


def test_an_order_from_before_there_was_a_limit_keeps_the_limits_of_its_steps() -> None:
    assert "fence_limit_s" not in POLICY.model_dump()
    limits = [o(POLICY, "x")["start_to_close_timeout"] for o in (options.fence, options.look)]
    assert [limit and limit.total_seconds() for limit in limits] == [40, 30]

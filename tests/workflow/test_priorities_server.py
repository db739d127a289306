"""Who goes first when the slots are full: classes of priority, and turns among clusters.

On a real server and on the engine's own queue. Each claim is also made with what it rests on
patched away, where the same check has to fail.
"""

from typing import Any
from unittest.mock import patch

import pytest
from temporalio.common import Priority

from tests.workflow.queues import Line, line

pytestmark = pytest.mark.workflow

SLOTS = 2
STORM, FEW, TURNS = 500, 10, 25
"""Turns: of two clusters that alternate, the smaller one is through after twice its own number."""


def no_class(**keys: Any) -> Priority:
    """What a start gets when its priority key is patched away."""
    return Priority(fairness_key=keys["fairness_key"])


def no_turns(**keys: Any) -> Priority:
    """What a start gets when its fairness key is patched away."""
    return Priority(priority_key=keys["priority_key"])


async def the_urgent_one_is_next(made: Line, queued: int) -> None:
    """Behind so many operations of class 5 at two slots, one of class 2 arrives."""
    async with made.worker(SLOTS):
        await made.enqueue_many([f"w{number}" for number in range(queued)], priority=5)
        await made.waits(queued - SLOTS)
        await made.next(0, SLOTS)  # both slots are taken
        behind = len(made.started)
        await made.enqueue("urgent", priority=2)
        await made.scheduled("urgent", 1)
        await made.waits(queued - SLOTS + 1)
        made.let_go()
        assert await made.next(behind) == ["urgent.0"]


async def the_small_cluster_gets_its_turns(made: Line) -> None:
    """One cluster has queued 500 operations when another one asks for 10 of the same class."""
    async with made.worker(SLOTS):
        storm = [f"storm{number}" for number in range(STORM)]
        await made.enqueue_many(storm, priority=3, fairness="c1")
        await made.waits(STORM - SLOTS)
        await made.next(0, SLOTS)
        behind = len(made.started)
        few = [f"few{number}" for number in range(FEW)]
        await made.enqueue_many(few, 3, fairness="c2")
        for name in few:
            await made.scheduled(name, 1)
        await made.waits(STORM - SLOTS + FEW)
        made.let_go(STORM + FEW)
        first = await made.next(behind, TURNS)
        assert sum(name.startswith("few") for name in first) == FEW


async def test_an_urgent_step_goes_before_all_that_are_queued(temporal_address: str) -> None:
    async with line(temporal_address) as made:
        await the_urgent_one_is_next(made, queued=200)


async def test_without_priority_keys_the_same_start_waits_its_turn(temporal_address: str) -> None:
    with patch("worker.temporal_client.Priority", no_class):
        async with line(temporal_address) as made:
            with pytest.raises(AssertionError, match="urgent"):
                await the_urgent_one_is_next(made, queued=200)


async def test_a_storm_in_one_cluster_does_not_hold_up_another(temporal_address: str) -> None:
    async with line(temporal_address) as made:
        await the_small_cluster_gets_its_turns(made)


async def test_without_fairness_keys_the_storm_is_served_first(temporal_address: str) -> None:
    with patch("worker.temporal_client.Priority", no_turns):
        async with line(temporal_address) as made:
            with pytest.raises(AssertionError, match="assert 0 == 10"):
                await the_small_cluster_gets_its_turns(made)

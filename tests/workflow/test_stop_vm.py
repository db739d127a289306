"""Stopping VMs: by themselves, hard after their grace, by force, cancelled."""

import pytest

from tests.workflow import scenarios
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def test_a_vm_that_listens_ends_by_itself(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_vm_stops_by_itself(engine))
    assert (ended["state"], ended["summary"]) == ("succeeded", "gone from h1, by itself")
    assert (engine.copies("db"), engine.centre.hosts["h1"].domains) == ([], {})
    assert await engine.broken() == []


async def test_a_vm_that_does_not_listen_is_ended_hard_after_its_grace(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_deaf_vm_is_stopped_hard(engine))
    assert (ended["state"], ended["summary"]) == ("succeeded", "gone from h1, ended hard")
    assert engine.copies("db") == []
    assert await engine.broken() == []


async def test_a_forced_stop_asks_nobody(engine: Bench) -> None:
    operation = await scenarios.a_vm_is_stopped_by_force(engine)
    ended = await engine.operation(operation)
    steps = [row["name"] for row in await engine.rows("step")]
    assert (ended["state"], steps) == ("succeeded", ["guest.end"])
    assert await engine.broken() == []


async def test_a_cancelled_stop_says_that_the_guest_may_still_end(engine: Bench) -> None:
    operation = await scenarios.a_stop_is_cancelled_before_the_grace_is_over(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "cancelled"
    assert ended["summary"] == "db was asked to end and may still do so"
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_vm_whose_stop_was_cancelled_can_be_stopped_again(engine: Bench) -> None:
    await scenarios.a_stop_is_cancelled_before_the_grace_is_over(engine)
    assert (await engine.ended(await engine.stop("db")))["state"] == "succeeded"
    assert engine.copies("db") == []
    assert await engine.broken() == []


async def test_a_stop_on_a_host_that_falls_silent_fails_and_leaves_the_run_to_its_recovery(
    engine: Bench,
) -> None:
    operation = await scenarios.a_stop_on_a_host_that_falls_silent_fails(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "HOST_NO_ANSWER")
    assert [row["state"] for row in await engine.rows("vm_run")] == ["stopping"]
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    assert engine.copies("db") == [], "a VM that was being stopped is not started elsewhere"
    assert await engine.broken() == []

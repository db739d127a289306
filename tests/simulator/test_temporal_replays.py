"""Replays in virtual Temporal: other code is found, and patches go their way."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow

from simulator.temporal.errors import NonDeterminism, Unsupported
from tests.simulator.stand import Stand, stand
from tests.simulator.toy_steps import Order, call

pytestmark = pytest.mark.unit


@workflow.defn(name="Changing")
class Before:
    """A workflow as it was."""

    @workflow.run
    async def run(self) -> list[Any]:
        """One step and a pause."""
        got = [await call(Order(value="one"))]
        await asyncio.sleep(10)
        return [*got, await call(Order(value="two"))]


@workflow.defn(name="Changing")
class Careless:
    """The same with another first step."""

    @workflow.run
    async def run(self) -> list[Any]:
        """Another step."""
        got = [await call(Order(step="toy.sleeps", value=1))]
        await asyncio.sleep(10)
        return [*got, await call(Order(value="two"))]


@workflow.defn(name="Changing")
class Careful:
    """The same with a patch before and a patch after the pause."""

    @workflow.run
    async def run(self) -> list[Any]:
        """Which way it went."""
        got: list[Any] = [workflow.patched("early")]
        if got[0]:
            got.append(await call(Order(value="new", local=True)))
        got.append(await call(Order(value="one")))
        await asyncio.sleep(10)
        got.append(workflow.patched("late"))
        got.append(workflow.patched("early"))
        return [*got, await call(Order(value="two"))]


@workflow.defn(name="Changing")
class Fickle:
    """The same, but what it does hangs on what is not in its record."""

    times = 0

    @workflow.run
    async def run(self) -> list[Any]:
        """One step more each time."""
        Fickle.times += 1
        got = [await call(Order(value=Fickle.times))]
        await asyncio.sleep(10)
        return got


@workflow.defn(name="Nexus")
class Nexus:
    """Asks for something that the simulator lacks."""

    @workflow.run
    async def run(self) -> None:
        """Never comes far."""
        client = workflow.create_nexus_client(service="s", endpoint="e")
        await client.execute_operation(
            "o", None, schedule_to_close_timeout=timedelta(seconds=1), output_type=str
        )


def swapped(at: Stand, run: Any, old: type, new: type) -> Any:
    """A run that began with one code and goes on with another."""
    first = at.worker("old", workflows=(old,))

    async def main() -> Any:
        begun = at.start("Changing")
        await asyncio.sleep(5)
        at.kill(first)
        at.worker("new", workflows=(new,))
        await asyncio.sleep(30)
        return None if begun.open else await at.result(begun)

    return run(main())


def test_other_code_on_replay_is_found_and_the_difference_shown() -> None:
    with stand(defects=True) as (at, run):
        assert swapped(at, run, Before, Careless) is None
    assert {type(each) for each in at.defects} == {NonDeterminism}
    shown = str(at.defects[0])
    assert '-  activity_type: "toy.echo"' in shown
    assert '+  activity_type: "toy.sleeps"' in shown


def test_code_that_hangs_on_what_is_not_recorded_is_found_by_an_eviction() -> None:
    with stand(defects=True) as (at, run):
        worker = at.worker(workflows=(Fickle,))

        async def main() -> None:
            at.start("Changing")
            await asyncio.sleep(5)
            worker.evict_all()
            await asyncio.sleep(10)

        run(main())
    assert isinstance(at.defects[0], NonDeterminism)


def test_a_run_from_before_a_patch_goes_on_in_its_old_way_up_to_where_it_was() -> None:
    with stand() as (at, run):
        assert swapped(at, run, Before, Careful) == [False, "one", True, False, "two"]


def test_a_new_run_goes_the_patched_way_through_replays_too() -> None:
    with stand() as (at, run):
        gave = swapped(at, run, Careful, Careful)
    assert gave == [True, "new", "one", True, True, "two"]


def test_a_patched_run_does_not_go_back_to_code_without_the_patch() -> None:
    with stand(defects=True) as (at, run):
        assert swapped(at, run, Careful, Before) is None
    assert isinstance(at.defects[0], NonDeterminism)
    assert 'patch_id: "early"' in str(at.defects[0])


def test_what_the_simulator_lacks_is_named() -> None:
    with stand(defects=True) as (at, run):
        at.worker(workflows=(Nexus,))

        async def main() -> None:
            at.start("Nexus")
            await asyncio.sleep(1)

        run(main())
    assert isinstance(at.defects[0], Unsupported)
    assert "schedule_nexus_operation" in str(at.defects[0])

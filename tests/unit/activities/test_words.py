"""What a fence is at ends once a person says that the host is dead."""

import asyncio

import pytest

from activities.words import unless_said

pytestmark = pytest.mark.unit


async def never() -> bool:
    return False


async def at_once() -> bool:
    return True


async def test_work_that_nobody_interrupts_gives_its_result() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "off"

    assert await unless_said(at_once, work()) == "off"


async def test_a_word_cancels_the_work_and_waits_until_it_has_ended() -> None:
    ended = []

    async def work() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    assert await unless_said(at_once, work()) is None
    assert ended == [True]


async def test_what_goes_wrong_in_the_work_is_raised() -> None:
    async def work() -> None:
        raise RuntimeError("the agent is broken")

    with pytest.raises(RuntimeError, match="the agent is broken"):
        await unless_said(never, work())


async def test_trouble_with_looking_ends_the_work_too() -> None:
    ended = []

    async def said() -> bool:
        raise RuntimeError("the database is away")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="the database is away"):
        await unless_said(said, work())
    assert ended == [True]


async def test_a_cancelled_step_leaves_no_work_behind() -> None:
    ended = []
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    step = asyncio.create_task(unless_said(never, work()))
    await began.wait()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert ended == [True]

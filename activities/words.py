"""Ends what a fence is at once a person says that the host is dead: their word needs no fence.

A controller that died with its host would be waited for to its deadline, time after time, while
somebody has gone and looked. What is cut short is harmless: a reading changes nothing, and an
agent that is killed on its way to switch off a machine that is off leaves it off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.2
"""Higher: a word is heard later. Lower: a fence that goes on reads the database more often."""


async def unless_said(
    said: Callable[[], Awaitable[bool]], work: Coroutine[Any, Any, T]
) -> T | None:
    """The result of `work`, or None once `said`; it is cancelled then, and has ended."""
    task = asyncio.create_task(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=LOOK_EVERY_S)
            if done:
                return task.result()
            if await said():
                return None
    finally:
        task.cancel()
        await asyncio.wait({task})

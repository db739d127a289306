"""Waiting for a condition, with a limit. Heartbeats come from the worker's interceptor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from domain.errors import EngineError, NoAnswer

T = TypeVar("T")


async def until(
    condition: Callable[[], Awaitable[bool]], *, every_s: float, within_s: float
) -> bool:
    """Ask until the condition holds; False when it did not within the limit. Asks at least once."""
    clock = asyncio.get_running_loop().time
    end = clock() + within_s
    while True:
        if await condition():
            return True
        if clock() >= end:
            return False
        await asyncio.sleep(min(every_s, max(0.0, end - clock())))


async def answered(
    ask: Callable[[], Awaitable[T]],
    *,
    every_s: float,
    within_s: float,
    missing: type[EngineError] = NoAnswer,
) -> T:
    """What is answered at last; raises what is `missing` when it goes on past the limit."""
    clock = asyncio.get_running_loop().time
    end = clock() + within_s
    while True:
        try:
            return await ask()
        except missing:
            if clock() >= end:
                raise
        await asyncio.sleep(min(every_s, max(0.0, end - clock())))

"""Waiting for a condition, with a limit. Heartbeats come from the worker's interceptor."""

import asyncio
from collections.abc import Awaitable, Callable


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

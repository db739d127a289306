"""A long step holds its operation by a lease, and ends when it cannot renew it.

What a step may still do when its workflow is gone, the next try waits for: until the step's
deadline. For steps of seconds that is short; a migration may take half an hour, and a worker that
died in the first minute of it would keep the VM's locks for the rest. So a long step's deadline is
a minute away and is moved on while it lives; one that could not move it in time is at work no more.

Ages are those of the loop's monotonic clock: a process that stood still for longer than its lease
finds that out before it renews anything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from domain.errors import EngineError, Unavailable

log = structlog.get_logger()

T = TypeVar("T")

LONG_S = 600.0
"""Steps with a higher limit have a lease. Higher: a dead worker's step keeps its operation for
longer. Lower: steps of a fence get one, too, and a database that is away would end them."""

LEASE_S = 60.0
"""How long a lease is. Higher: a dead worker's migration is settled later. Lower: a database that
is away for less ends a migration that is well."""

MARGIN_S = 5.0
"""So long before it is over a lease counts as lost: the work has to end, too."""

RENEWED_EVERY_S = 15.0
"""Higher: fewer tries to renew within a lease. Lower: more writes for each long step."""

Renew = Callable[[float], Awaitable[bool]]


def first_limit_s(limit_s: float) -> float:
    """Seconds until the deadline that a step begins with."""
    return LEASE_S if limit_s > LONG_S else limit_s


async def leased(work: Callable[[], Awaitable[T]], renew: Renew, limit_s: float) -> T:
    """Do the work of a step of that limit, renewing its lease where it has one.

    `renew` moves the deadline to so many seconds from now; False: another try has taken over.
    Raises Unavailable (LEASE_LOST) then, and when the lease was over before it could be renewed;
    the work is cancelled, and has ended.
    """
    if limit_s <= LONG_S:
        return await work()
    began_s = asyncio.get_running_loop().time()
    doing = asyncio.ensure_future(work())
    keeping = asyncio.ensure_future(_kept(renew, began_s))
    try:
        await asyncio.wait((doing, keeping), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        held_s = keeping.result()
        raise Unavailable(
            "LEASE_LOST",
            f"this step could not renew its lease of {LEASE_S:.0f} s for {held_s:.0f} s",
            next_step="it is tried again by itself; see whether this worker reaches the database",
        )
    finally:
        for task in (keeping, doing):
            task.cancel()
        # The work tidies up behind itself before anybody else is told that it has ended.
        await asyncio.gather(keeping, doing, return_exceptions=True)


async def _kept(renew: Renew, began_s: float) -> float:
    """Renew until the lease is lost; the seconds since it was last renewed."""
    clock = asyncio.get_running_loop().time
    lost_s = began_s + LEASE_S - MARGIN_S
    while clock() < lost_s:
        await asyncio.sleep(min(RENEWED_EVERY_S, lost_s - clock()))
        asked_s = clock()
        if asked_s >= lost_s:
            break
        try:
            async with asyncio.timeout(lost_s - asked_s):
                if not await renew(LEASE_S):
                    break
            lost_s = asked_s + LEASE_S - MARGIN_S
        except (EngineError, TimeoutError) as error:
            log.warning("a step's lease was not renewed", why=str(error))
    return clock() - (lost_s - LEASE_S + MARGIN_S)

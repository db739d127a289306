"""The engine's housekeeping: starts what the outbox still holds, numbers committed events, and runs
what has to be done from time to time. What fails is tried again in its next round, whatever it was.

Any number of relays may run: each duty looks first, and what it does may be done twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from domain.errors import EngineError
from engine.delivery import Delivery
from store.database import Database
from store.notify import changes

log = structlog.get_logger()

EVERY_S = 0.25
"""Higher: events show later and left-over starts wait longer. Lower: more idle database reads."""


CHECKPOINT_EVERY_S = 10.0
"""Higher: the embedded database's log grows longer. Lower: writers wait for it more often."""

GRANT_EVERY_S = 1.0
"""How late a wait for locks ends at the most; a freed lock is announced and heard at once where
the closing process can be heard."""

RETENTION_EVERY_S = 3600.0


@dataclass(frozen=True)
class Duty:
    """Something to do again and again; `woken`: also when an operation has ended."""

    name: str
    every_s: float
    work: Callable[[], Awaitable[int]]
    woken: bool = False


async def relay(delivery: Delivery, database: Database, duties: Sequence[Duty] = ()) -> None:
    """Run until cancelled. Any number may run: a start under a used id counts as done."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_deliver(delivery))
        group.create_task(_checkpoint(database))
        for duty in duties:
            group.create_task(_fulfil(duty, database))


async def _fulfil(duty: Duty, database: Database) -> None:
    if not duty.woken:
        while True:
            await _once(duty)
            await asyncio.sleep(duty.every_s)
    while True:
        with _contained(duty.name):
            await _fulfil_woken(duty, database)
        await asyncio.sleep(duty.every_s)


async def _fulfil_woken(duty: Duty, database: Database) -> None:
    async with changes(database, "outbox") as heard:
        while True:
            await _once(duty)
            await heard.wait(duty.every_s)


async def _once(duty: Duty) -> None:
    with _contained(duty.name):
        if done := await duty.work():
            log.info("done", duty=duty.name, count=done)


async def _checkpoint(database: Database) -> None:
    while True:
        with _contained("checkpoint"):
            await database.checkpoint()
        await asyncio.sleep(CHECKPOINT_EVERY_S)


async def _deliver(delivery: Delivery) -> None:
    while True:
        with _contained("number events"):
            await delivery.number_events()
        with _contained("deliver"):
            if delivered := await delivery.deliver_due():
                log.info("left-over starts delivered", count=delivered)
        await asyncio.sleep(EVERY_S)


@contextmanager
def _contained(duty: str) -> Iterator[None]:
    """What fails is done again in its next round, and the other duties go on meanwhile."""
    try:
        yield
    except EngineError as error:
        log.warning("put off", duty=duty, code=error.code, why=error.detail)
    except Exception:  # one defect, or one bad row, must not end all that the relay does
        log.exception("put off", duty=duty)

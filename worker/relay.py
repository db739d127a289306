"""Starts what the outbox still holds, numbers committed events, and tidies the database's log."""

import asyncio

import structlog

from domain.errors import EngineError
from engine.delivery import Delivery
from store.database import Database

log = structlog.get_logger()

EVERY_S = 0.25
"""Higher: events show later and left-over starts wait longer. Lower: more idle database reads."""


CHECKPOINT_EVERY_S = 10.0
"""Higher: the embedded database's log grows longer. Lower: writers wait for it more often."""


async def relay(delivery: Delivery, database: Database) -> None:
    """Run until cancelled. Any number may run: a start under a used id counts as done."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_deliver(delivery))
        group.create_task(_checkpoint(database))


async def _checkpoint(database: Database) -> None:
    while True:
        try:
            await database.checkpoint()
        except EngineError as error:
            log.info("checkpoint put off", code=error.code, why=error.detail)
        await asyncio.sleep(CHECKPOINT_EVERY_S)


async def _deliver(delivery: Delivery) -> None:
    while True:
        try:
            await delivery.number_events()
            delivered = await delivery.deliver_due()
            if delivered:
                log.info("left-over starts delivered", count=delivered)
        except EngineError as error:
            log.warning("relay waits", code=error.code)
        await asyncio.sleep(EVERY_S)

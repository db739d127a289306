"""Starts what the outbox still holds and gives committed events their numbers."""

import asyncio

import structlog

from domain.errors import EngineError
from engine.delivery import Delivery

log = structlog.get_logger()

EVERY_S = 0.25
"""Higher: events show later and left-over starts wait longer. Lower: more idle database reads."""


async def relay(delivery: Delivery) -> None:
    """Run until cancelled. Any number may run: a start under a used id counts as done."""
    while True:
        try:
            await delivery.number_events()
            delivered = await delivery.deliver_due()
            if delivered:
                log.info("left-over starts delivered", count=delivered)
        except EngineError as error:
            log.warning("relay waits", code=error.code)
        await asyncio.sleep(EVERY_S)

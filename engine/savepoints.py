"""A part of a transaction that may be refused without ending the whole of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domain.errors import Refused
from engine.actions.base import Tx


@asynccontextmanager
async def savepoint(tx: Tx) -> AsyncIterator[None]:
    """Take back what is written inside when that ends in a refusal, and what was read of it.

    Rows that `tx.writes` has collected are the caller's.
    """
    known = tx.facts.mark()
    try:
        async with tx.connection.begin_nested():
            yield
    except Refused:
        tx.facts.back_to(known)
        raise

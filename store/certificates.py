"""Statements on death certificates as a chain."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row, many, one
from store.schema_ha import death_certificate

LAST = (
    sa.select(death_certificate)
    .where(death_certificate.c.number.is_not(None))
    .order_by(death_certificate.c.number.desc())
    .limit(1)
)
UNNUMBERED = sa.select(death_certificate).order_by(death_certificate.c.id.desc()).limit(1)
ALL = sa.select(death_certificate).order_by(death_certificate.c.id)


async def newest(connection: AsyncConnection) -> Row | None:
    """The last link of the chain, or the newest certificate from before there was one."""
    return await one(connection, LAST) or await one(connection, UNNUMBERED)


async def chain(connection: AsyncConnection) -> list[Row]:
    """Every certificate: those from before there was a chain, then by number."""
    return sorted(await many(connection, ALL), key=lambda row: row["number"] or 0)

"""Column types that behave the same on every database.

MariaDB's own idea of a time has no fraction and of a float four bytes; both are widened for every
table at once, in migrations too, so that no column can be forgotten.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware UTC time; naive values are refused rather than guessed."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """From the database: aware, whatever the driver dropped."""
        if value is None:
            return None
        aware: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware


@compiles(sa.DateTime, "mariadb", "mysql")
def _with_microseconds(_type: sa.DateTime, _compiler: object, **_: object) -> str:
    return "DATETIME(6)"


@compiles(sa.Float, "mariadb", "mysql")
def _in_eight_bytes(_type: sa.Float[float], _compiler: object, **_: object) -> str:
    return "DOUBLE"

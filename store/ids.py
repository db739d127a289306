"""New ids: UUIDv7, so that they sort by age on every database."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A fresh UUIDv7 as a standard UUID."""
    return UUID(int=uuid_utils.uuid7().int)


def made_at(id_: UUID) -> datetime:
    """When an id was made, to the millisecond."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=id_.int >> 80)

"""New ids: UUIDv7, so that they sort by age on every database."""

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A fresh UUIDv7 as a standard UUID."""
    return UUID(int=uuid_utils.uuid7().int)

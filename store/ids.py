"""New ids: UUIDv7, so that they sort by age on every database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from uuid import UUID

import uuid_utils

_source: ContextVar[Callable[[], UUID] | None] = ContextVar("ids", default=None)


def new_id() -> UUID:
    """A fresh UUIDv7 as a standard UUID."""
    source = _source.get()
    return UUID(int=uuid_utils.uuid7().int) if source is None else source()


@contextmanager
def ids_from(source: Callable[[], UUID]) -> Iterator[None]:
    """Let another source give ids here and in every task begun here: for simulations."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def made_at(id_: UUID) -> datetime:
    """When an id was made, to the millisecond."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=id_.int >> 80)

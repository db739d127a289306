"""The engine's wall clock, handed in wherever a time is written down."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]

_source: ContextVar[Clock | None] = ContextVar("clock", default=None)


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    source = _source.get()
    return datetime.now(UTC) if source is None else source()


@contextmanager
def clock_from(source: Clock) -> Iterator[None]:
    """Let another clock tell the time here and in every task begun here: for simulations."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)

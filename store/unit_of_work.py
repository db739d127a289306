"""One transaction while it runs: who may join it, what happens after it.

A unit belongs to the asyncio task that opened it. Which units are open is known from a context
variable, so a function deep below joins without being handed anything. A task started inside a
unit inherits that variable: while the unit is open it is refused, because two tasks on one
connection would mix their statements; wrap the new task's work in `Database.suppress` instead.
Once the unit is closed, the inherited variable counts as empty.

A unit whose inner part failed cannot be committed any more, even if the outer part swallowed the
error (`doom`). Hooks run after the transaction, outside of it; a hook that fails is logged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

log = structlog.get_logger()

Hook: TypeAlias = Callable[[], Awaitable[None]]

UNIT = "holdfast_unit"
"""The execution option by which a connection knows its unit."""


class Propagation(StrEnum):
    """What a writing transaction does when another one is open already."""

    REQUIRED = "required"
    """Join it; open one when there is none."""

    REQUIRES_NEW = "requires_new"
    """Suspend it and use one of its own, which commits whatever becomes of the other."""

    MANDATORY = "mandatory"
    """Join it; refuse when there is none."""


class NoUnitOpen(RuntimeError):
    """A defect of ours: code that needs a transaction ran outside of one."""


class UnitOfOtherTask(RuntimeError):
    """A defect of ours: a task used the open transaction of the task that started it."""


@dataclass(eq=False, slots=True)
class UnitOfWork:
    """One try of one transaction."""

    database: object
    read: bool
    task: asyncio.Task[object] | None = field(default_factory=asyncio.current_task)
    begun: bool = False
    """Whether a statement was sent; from then on a write unit holds SQLite's writer lock."""
    committing: bool = False
    committed: bool = False
    """Whether the database has said so; nothing that goes wrong afterwards takes it back."""
    closed: bool = False
    doomed_by: BaseException | None = None
    announced: set[str] = field(default_factory=set)
    """The channels of `store.notify` whose waiters the commit wakes."""
    _connection: AsyncConnection | None = None
    _on_commit: list[Hook] = field(default_factory=list)
    _on_rollback: list[Hook] = field(default_factory=list)

    @property
    def connection(self) -> AsyncConnection:
        """The connection of this transaction, while it is open."""
        if self._connection is None or self.closed:
            raise NoUnitOpen("this transaction has no connection now")
        return self._connection

    def on_commit(self, hook: Hook) -> None:
        """Run `hook` once the whole transaction has been committed."""
        self._on_commit.append(hook)

    def on_rollback(self, hook: Hook) -> None:
        """Run `hook` once the transaction has been given up for good, not before a new try."""
        self._on_rollback.append(hook)

    def opened(self, connection: AsyncConnection) -> None:
        """The transaction has begun on `connection`."""
        self._connection = connection

    def doom(self, cause: BaseException) -> None:
        """It cannot be committed any more; the first cause counts."""
        if self.doomed_by is None and not self.read:
            self.doomed_by = cause

    async def after(self, *, committed: bool) -> None:
        """Run the hooks, with no unit open; never raises what a hook raised."""
        hooks = self._on_commit if committed else self._on_rollback
        with entered(None):
            for hook in hooks:
                try:
                    await hook()
                except Exception:
                    log.exception("transaction hook failed", committed=committed)


_open: ContextVar[tuple[UnitOfWork | None, ...]] = ContextVar("open_units", default=())
"""The open units of this context, outermost first; None hides those before it."""


def current_unit() -> UnitOfWork:
    """The open transaction of this task; `NoUnitOpen` when there is none."""
    stack = _live()
    if not stack or stack[-1] is None:
        raise NoUnitOpen("no transaction is open in this task")
    return _mine(stack[-1])


def joinable(database: object) -> UnitOfWork | None:
    """The unit of `database` that this task may join; `UnitOfOtherTask` for another task's."""
    for unit in reversed(_live()):
        if unit is None:
            return None
        if unit.database is database:
            return _mine(unit)
    return None


def held(database: object) -> list[UnitOfWork]:
    """This task's open units of `database`, suspended ones too: they wait for what we do."""
    task = asyncio.current_task()
    units = [unit for unit in _live() if unit is not None]
    return [unit for unit in units if unit.database is database and unit.task is task]


@contextmanager
def entered(unit: UnitOfWork | None) -> Iterator[None]:
    """Make `unit` the current one inside the block; None: no unit is."""
    token = _open.set((*_open.get(), unit))
    try:
        yield
    finally:
        if unit is not None:
            unit.closed = True
        _open.reset(token)


def _live() -> list[UnitOfWork | None]:
    return [unit for unit in _open.get() if unit is None or not unit.closed]


def _mine(unit: UnitOfWork) -> UnitOfWork:
    if unit.task is not asyncio.current_task():
        raise UnitOfOtherTask(
            "this task was started inside a transaction that is still open; a task must not use"
            " its parent's connection: run its work through Database.suppress"
        )
    return unit

"""Transactions on SQLite, PostgreSQL and MariaDB.

A transaction is a function of one connection, so that it can be run again: a serialisation failure,
a deadlock or a lost race for a unique key rolls back and repeats it as a whole, at most `TRIES`
times (`KEY_TRIES` for unique keys). Called inside an open transaction of the same task, `write` and
`read` join it and leave commit, rollback and repetition to the outermost one.

An inner transaction of its own (`REQUIRES_NEW`, or any inside `suppress`) has connections of its
own, so that outers cannot starve their inners. If it waits for a row that its own suspended outer
holds, neither can go on: servers give up the wait after `INNER_LOCK_S`, and on SQLite, which has
one writer, it is refused before it starts. There the outer's first statement draws the line,
because that is when it becomes the writer. A memory database is one connection: its transactions
take turns, since sharing it would make one commit the other's writes.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import Conflict, EngineError, OutcomeUnknown, Unavailable
from store import dialects, failures, server_links
from store.dialects import in_memory
from store.failures import KEY_TRIES, TRIES
from store.server_links import STATEMENT_S
from store.unit_of_work import Propagation, UnitOfWork, entered, held, joinable

__all__ = ["TRIES", "Database", "Propagation", "Work", "in_memory"]

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

CHECKPOINT_MS = 200
"""How long a checkpoint holds up writers while it waits for readers."""

INNER_WAITS = 3
"""Lock time-outs after which an inner is taken to wait for its own outer. Lower: a stranger's
long transaction is mistaken for the outer."""


class Database:
    """One database; `write` and `read` run a function in a transaction.

    `engine`: connections that others made and share; closing this leaves them open. `statement_s`:
    how long a server may take for a statement; None: as long as it likes.
    """

    def __init__(
        self,
        url: str,
        engine: AsyncEngine | None = None,
        *,
        statement_s: float | None = STATEMENT_S,
    ) -> None:
        self.url = url
        self._shared = engine is not None
        self._statement_s = statement_s
        self._engine = engine or dialects.make_engine(url, statement_s=statement_s)
        self.dialect = dialects.dialect_name(self._engine)

    async def write(self, work: Work[T], propagation: Propagation = Propagation.REQUIRED) -> T:
        """Run `work` in a writing transaction; repeated as a whole when it lost a race.

        Conflict: TRANSACTION_READ_ONLY inside a reading one, TRANSACTION_REQUIRED for MANDATORY
        outside any, REQUIRES_NEW_REFUSED where the database has no second writer,
        TRANSACTION_WAITS_FOR_ITSELF, TRANSACTION_ROLLED_BACK when an inner part had failed.
        Unavailable: DATABASE_BUSY, DATABASE_UNAVAILABLE.
        """
        unit = joinable(self)
        if unit is None and propagation is Propagation.MANDATORY:
            raise _required()
        if unit is None or propagation is Propagation.REQUIRES_NEW:
            return await self._run(work, read=False)
        if unit.read:
            raise failures.read_only("a writing transaction inside it")
        return await _joined(work, unit)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a transaction that must not write; a consistent view."""
        unit = joinable(self)
        if unit is not None:
            return await work(unit.connection)
        return await self._run(work, read=True)

    async def suppress(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` as if no transaction were open; the open one waits and is not affected."""
        with entered(None):
            return await work()

    async def alone(self, work: Callable[[sa.Connection], T]) -> T:
        """Run synchronous `work` in one transaction that excludes every other such: migrations.

        Not repeated. READ COMMITTED on servers, so that what the one before us did is seen, and
        statements that take as long as they need.
        MariaDB commits each change of a table by itself: a failure there leaves what came before.
        """
        try:
            async with self._unhurried() as engine, engine.connect() as connection:
                if self.dialect != "sqlite":
                    await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    await dialects.exclude_others(connection, self.dialect)
                    try:
                        return await connection.run_sync(work)
                    finally:
                        await dialects.include_others(connection, self.dialect)
        except failures.TROUBLE as error:
            raise failures.translated(error) from error

    async def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the database file; nothing to do elsewhere.

        Never by SQLite itself (decision 7). A reader or a writer in the way ends the attempt after
        `CHECKPOINT_MS` with Unavailable (DATABASE_BUSY): part of the log is moved then, it stays as
        long as it is, and the next attempt goes on.
        """
        if self.dialect != "sqlite" or in_memory(self.url):
            return
        async with self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(f"PRAGMA busy_timeout={CHECKPOINT_MS}")
            try:
                ((blocked, *_),) = await raw.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
                if blocked:  # SQLite says so in a row of its answer, and not as an error
                    raise failures.busy("the log was not emptied: others were reading or writing")
            except sqlite3.OperationalError as error:
                raise failures.busy(f"the log was not moved: {error}") from error
            finally:
                await raw.execute(f"PRAGMA busy_timeout={int(dialects.BUSY_S * 1000)}")

    async def close(self) -> None:
        """Give every connection back."""
        if not self._shared:
            await server_links.dispose(self._engine)
        if "_inner" in self.__dict__:
            await server_links.dispose(self._inner)

    async def create_all(self, metadata: sa.MetaData) -> None:
        """Create the tables without migrations: for tests of single statements."""
        async with self._engine.begin() as connection:
            await connection.run_sync(dialects.prepare)
            await connection.run_sync(metadata.create_all)

    @cached_property
    def _inner(self) -> AsyncEngine:
        return dialects.make_engine(self.url, inner=True, statement_s=self._statement_s)

    @asynccontextmanager
    async def _unhurried(self) -> AsyncIterator[AsyncEngine]:
        if self.dialect == "sqlite":
            yield self._engine
            return
        engine = dialects.make_engine(self.url, statement_s=None)
        try:
            yield engine
        finally:
            await server_links.dispose(engine)

    async def _run(self, work: Work[T], *, read: bool) -> T:
        outers = held(self)
        self._refuse_waiting_for_itself(outers, read=read)
        engine = self._inner if outers else self._engine
        taken = 0
        for lost in range(1, TRIES + 1):
            unit = UnitOfWork(self, read)
            try:
                result = await _once(engine, work, unit)
            except BaseException as error:
                if unit.committed:  # only the way back of its connection was cut short
                    await unit.after(committed=True)
                    raise
                taken += failures.key_taken(error)
                if taken < KEY_TRIES and _repeat(error, lost, outers):
                    await asyncio.sleep(random.uniform(0.002, 0.02) * lost)
                    continue
                refusal = _verdict(error, unit, lost, outers)
                if not _perhaps_committed(unit, refusal):
                    await unit.after(committed=False)
                if refusal is error:
                    raise
                raise refusal from error
            await unit.after(committed=True)
            return result
        raise AssertionError("the last try either returns or raises")

    def _refuse_waiting_for_itself(self, outers: list[UnitOfWork], *, read: bool) -> None:
        if self.dialect != "sqlite" or not outers:
            return
        if in_memory(self.url):
            raise _refused("a memory database has one connection, and an open transaction uses it")
        if not read and any(unit.begun and not unit.read for unit in outers):
            raise _refused("SQLite has one writer: the suspended transaction, since its first line")


async def _once(engine: AsyncEngine, work: Work[T], unit: UnitOfWork) -> T:
    async with engine.connect() as plain:
        connection = await plain.execution_options(**dialects.options(engine, unit))
        async with connection.begin():
            unit.opened(connection)
            with entered(unit):
                result = await work(connection)
            _refuse_if_doomed(unit)
            unit.committing = True
        unit.committing, unit.committed = False, True
    return result


async def _joined(work: Work[T], unit: UnitOfWork) -> T:
    try:
        return await work(unit.connection)
    except BaseException as error:
        unit.doom(error)
        raise


def _refuse_if_doomed(unit: UnitOfWork) -> None:
    cause = unit.doomed_by
    if cause is None:
        return
    if failures.lost_race(cause):
        raise cause
    raise Conflict(
        "TRANSACTION_ROLLED_BACK",
        f"nothing was written: an inner part had failed ({type(cause).__name__}: {cause!s:.300})",
        next_step="let the error of the inner part through, or give that part REQUIRES_NEW",
    ) from cause


def _repeat(error: BaseException, lost: int, outers: list[UnitOfWork]) -> bool:
    if not failures.lost_race(error):
        return False
    return lost < (INNER_WAITS if _waits_for_itself(error, outers) else TRIES)


def _waits_for_itself(error: BaseException, outers: list[UnitOfWork]) -> bool:
    return failures.lock_timed_out(error) and any(unit.begun for unit in outers)


def _verdict(
    error: BaseException, unit: UnitOfWork, lost: int, outers: list[UnitOfWork]
) -> BaseException:
    if _waits_for_itself(error, outers):
        return Conflict(
            "TRANSACTION_WAITS_FOR_ITSELF",
            f"the inner transaction waited {lost} times {dialects.INNER_LOCK_S} s for a row that"
            " its own suspended outer holds, or another slow transaction",
            next_step="do the inner part before the outer touches that row, or in an on-rollback"
            " or on-commit hook",
        )
    if failures.lost_race(error):
        return failures.busy(f"the transaction lost {lost} races in a row", lost)
    meant = failures.translated(error)
    if unit.committing and not unit.read and isinstance(meant, Unavailable):
        return OutcomeUnknown(
            "COMMIT_OUTCOME_UNKNOWN",
            f"the database went away during the commit: {meant.detail}",
            next_step="look whether the change is there before asking for it again",
        )
    return meant


def _perhaps_committed(unit: UnitOfWork, error: BaseException) -> bool:
    return isinstance(error, OutcomeUnknown) or (
        unit.committing and isinstance(error, asyncio.CancelledError)
    )


def _required() -> EngineError:
    return Conflict(
        "TRANSACTION_REQUIRED",
        "this part only works inside a transaction, and none is open",
        next_step="call it from inside write()",
    )


def _refused(why: str) -> EngineError:
    return Conflict(
        "REQUIRES_NEW_REFUSED",
        f"a second transaction would wait for itself: {why}",
        next_step="use an on-rollback or on-commit hook, or begin with the inner part",
    )

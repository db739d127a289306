"""What runs after a transaction: once, outside of it, and never for a try that is repeated."""

import asyncio
from itertools import count
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from domain.errors import Unavailable
from store.database import Database, Propagation
from store.unit_of_work import NoUnitOpen, current_unit
from tests.store.notes import Notes, fail, note, writing

pytestmark = [pytest.mark.store, pytest.mark.usefixtures("notes")]

ON_SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)


async def test_a_failed_outer_leaves_only_the_row_that_its_on_rollback_hook_writes(
    database: Database, notes: Notes
) -> None:
    """How the audit row of a failed action survives."""

    async def inner(connection: AsyncConnection) -> None:
        current_unit().on_rollback(lambda: database.write(writing("audit: it failed")))
        current_unit().on_commit(lambda: database.write(writing("never")))
        await note(connection, "inner")
        await fail(connection)

    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        await database.write(inner)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == ["audit: it failed"]


async def test_an_on_commit_hook_runs_after_the_commit_with_no_transaction_open(
    database: Database, notes: Notes
) -> None:
    seen: list[Any] = []

    async def hook() -> None:
        with pytest.raises(NoUnitOpen):
            current_unit()
        seen.append(await notes())
        await database.write(writing("hook"))

    async def outer(connection: AsyncConnection) -> None:
        current_unit().on_commit(hook)
        current_unit().on_rollback(lambda: database.write(writing("never")))
        await note(connection, "outer")
        assert seen == []

    await database.write(outer)
    assert seen == [["outer"]]
    assert await notes() == ["hook", "outer"]


@ON_SERVERS
async def test_a_hook_of_an_inner_transaction_does_not_join_the_suspended_outer_one(
    database: Database, notes: Notes
) -> None:
    async def inner(connection: AsyncConnection) -> None:
        current_unit().on_commit(lambda: database.write(writing("hook")))
        await note(connection, "inner")

    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        await database.write(inner, Propagation.REQUIRES_NEW)
        await fail(connection)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == ["hook", "inner"]


async def test_hooks_of_a_lost_try_are_forgotten(database: Database, notes: Notes) -> None:
    tries = count(1)

    async def outer(connection: AsyncConnection) -> None:
        number = next(tries)
        current_unit().on_commit(lambda: database.write(writing(f"committed {number}")))
        current_unit().on_rollback(lambda: database.write(writing(f"rolled back {number}")))
        await note(connection, "outer")
        if number < 3:
            await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["committed 3", "outer"]


async def test_a_transaction_that_gives_up_runs_the_rollback_hooks_of_its_last_try_once(
    database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.database.TRIES", 3)
    tries = count(1)

    async def outer(connection: AsyncConnection) -> None:
        number = next(tries)
        current_unit().on_rollback(lambda: database.write(writing(f"rolled back {number}")))
        await note(connection, "outer")
        await note(connection, "outer")

    with pytest.raises(Unavailable, match="DATABASE_BUSY"):
        await database.write(outer)
    assert await notes() == ["rolled back 3"]


async def test_a_cancelled_transaction_runs_its_rollback_hook(
    database: Database, notes: Notes
) -> None:
    inside = asyncio.Event()

    async def outer(connection: AsyncConnection) -> None:
        current_unit().on_rollback(lambda: database.write(writing("audit: cancelled")))
        await note(connection, "outer")
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(database.write(outer))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await notes() == ["audit: cancelled"]


async def test_a_transaction_cancelled_after_its_commit_runs_its_commit_hook(
    database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit stands, whatever becomes of the connection that is given back after it."""
    given_back = AsyncConnection.close

    async def interrupted(connection: AsyncConnection) -> None:
        monkeypatch.setattr(AsyncConnection, "close", given_back)
        task.cancel()
        await given_back(connection)
        await asyncio.sleep(0)

    async def outer(connection: AsyncConnection) -> None:
        current_unit().on_rollback(lambda: database.write(writing("never")))
        current_unit().on_commit(lambda: database.write(writing("hook")))
        await note(connection, "outer")
        monkeypatch.setattr(AsyncConnection, "close", interrupted)

    task = asyncio.create_task(database.write(outer))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await notes() == ["hook", "outer"]


async def test_a_hook_that_fails_is_logged_and_neither_the_result_nor_the_next_hook_suffers(
    database: Database, notes: Notes
) -> None:
    async def broken() -> None:
        raise LookupError("no such hook")

    async def outer(connection: AsyncConnection) -> str:
        current_unit().on_commit(broken)
        current_unit().on_commit(lambda: database.write(writing("second hook")))
        await note(connection, "outer")
        return "result"

    with capture_logs() as logs:
        assert await database.write(outer) == "result"
    assert [line["event"] for line in logs] == ["transaction hook failed"]
    assert await notes() == ["outer", "second hook"]

"""Two relay processes at one outbox: each with a pool of its own on the same database server.

A start may be told twice, because its workflow id makes the second one nothing. Everything else is
told exactly once and in its order, and nothing is left out, whoever of the two comes first.
"""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import WorkflowState
from engine.delivery import Delivery
from store import operations, plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row, number
from store.schema import outbox
from tests.store.engine_room import Engine
from tests.store.world import World

pytestmark = [
    pytest.mark.store,
    pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True),
]

STARTS, CANCELS, PRIORITIES, PAIRS = 80, 40, 20, 30
ROWS = STARTS + CANCELS + PRIORITIES + 2 * PAIRS


class Temporal:
    """Writes down what each of the two told it, taking a while for it as a server does."""

    def __init__(self) -> None:
        self._random = Random(1)
        self.told: list[tuple[str, str]] = []

    async def start(self, workflow: str, *_: Any, wid: str, **__: Any) -> None:
        """A workflow that may be known already."""
        await self._hear("start", wid)

    async def cancel(self, wid: str) -> None:
        """A request to end."""
        await self._hear("cancel", wid)

    async def signal(self, wid: str, name: str) -> None:
        """A word that means something each time."""
        await self._hear(name, wid)

    async def raise_priority(self, wid: str, priority: int) -> None:
        """Another class."""
        await self._hear("priority", wid)

    async def describe(self, wid: str) -> WorkflowState:
        """Never asked here."""
        return WorkflowState.RUNNING

    async def _hear(self, what: str, wid: str) -> None:
        self.told.append((what, wid))
        await asyncio.sleep(self._random.uniform(0, 0.01))


def rows_of(world: World) -> tuple[list[Row], list[Row]]:
    """Operations, and what the outbox holds of them: 200 rows, all due."""
    wanted = [
        *[("pending", [plumbing.START])] * STARTS,
        *[("cancelling", [plumbing.CANCEL])] * CANCELS,
        *[("running", [plumbing.PRIORITY])] * PRIORITIES,
        *[("running", ["pause", "resume"])] * PAIRS,
    ]
    made, posts = [], []
    for state, words in wanted:
        row: Row = {"id": new_id(), "kind": "vm.start", "state": state, "workflow": "StartVm"}
        row |= {"target_type": "vm", "target_id": new_id(), "target_name": "db", "order": {}}
        row |= {"cluster_id": world.cluster_id, "principal": "ann", "reason": ""}
        made.append(row | {"correlation_id": "c-1", "created_at": world.now})
        for word in words:
            signal = word if word in ("pause", "resume") else None
            kind = plumbing.SIGNAL if signal else word
            posts.append(plumbing.posting(new_id(), row["id"], world.now, kind, signal))
    return made, posts


async def relay(database: Database, delivery: Delivery) -> int:
    """What a relay does until nothing is left; how much it was that told it."""
    told = 0
    async with asyncio.timeout(60):
        while await database.read(untold):
            told += await delivery.deliver_due()
    return told


async def untold(connection: AsyncConnection) -> int:
    query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.done_at.is_(None))
    return await number(connection, query)


async def test_two_relay_processes_tell_every_word_once_and_lose_nothing(engine: Engine) -> None:
    world = engine.world
    made, posts = rows_of(world)
    assert len(posts) == ROWS == 200
    await world.do(operations.insert_all, made)
    await world.do(plumbing.post_all, posts)
    temporal: Any = Temporal()
    second = Database(world.database.url)
    try:
        counts = await asyncio.gather(
            *(relay(one, Delivery(one, temporal)) for one in (world.database, second))
        )
    finally:
        await second.close()
    assert min(counts) > 0, "one of them did all of it: nothing was shown"
    heard = Counter(temporal.told)
    starts = {key: times for key, times in heard.items() if key[0] == "start"}
    assert len(starts) == STARTS
    assert max(starts.values()) <= 2
    words = {key: times for key, times in heard.items() if key[0] != "start"}
    assert set(words.values()) == {1}
    told = Counter(what for what, _ in words)
    assert told == {"cancel": CANCELS, "priority": PRIORITIES, "pause": PAIRS, "resume": PAIRS}
    paused = [wid for what, wid in temporal.told if what == "pause"]
    for wid in paused:
        assert temporal.told.index(("pause", wid)) < temporal.told.index(("resume", wid))
    assert {row["done_at"] is None for row in await engine.rows("outbox")} == {False}

"""The engine over a test database, with fakes of what lies outside it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import EngineError, Invalid
from domain.orders import HostRef
from domain.profiles import Policy
from engine.actions.base import Params
from engine.backend import Backend, Receipt
from engine.records.batches import BatchRecords
from engine.records.fencing import FenceRecords
from engine.records.hosts import HostRecords
from engine.records.operations import OperationRecords
from engine.records.recovery import RecoveryRecords
from engine.records.runs import RunRecords
from engine.registry import all_actions, all_queries
from store.columns import metadata
from store.rows import Row, many
from tests.store.world import PERSON, World

POLICY = Policy()


class Sealer:
    """Seals by reversing; a test can tell a sealed secret from a plain one."""

    def seal(self, secrets: dict[str, str]) -> bytes:
        """Reversed."""
        return ";".join(f"{k}={v}" for k, v in sorted(secrets.items()))[::-1].encode()

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        """Reversed again; Invalid for what it did not seal."""
        if sealed == b"sealed":
            raise Invalid("SECRET_KEY_MISMATCH", "sealed with another key")
        pairs = (pair.partition("=") for pair in sealed.decode()[::-1].split(";") if pair)
        return {key: SecretStr(value) for key, _, value in pairs}


class Agents:
    """Knows one fence agent."""

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Refuse any other agent, any option but these, and a secret that is none."""
        if agent != "fence_ipmilan" or set(options) - {"ip", "username"}:
            raise Invalid("FENCE_AGENT_UNKNOWN", f"there is no {agent} with {sorted(options)}")
        if set(secrets) - {"password"}:
            raise Invalid("FENCE_OPTION_UNKNOWN", f"{agent} has no secret {sorted(secrets)}")


class Deliverer:
    """Remembers what was to be started."""

    def __init__(self) -> None:
        self.delivered: list[UUID] = []

    async def deliver(self, operation_id: UUID) -> None:
        """Remember it."""
        self.delivered.append(operation_id)


class Engine:
    """A backend and the records of every kind of step, in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deliverer = Deliverer()
        actions = all_actions(Sealer(), Agents())
        self.backend = Backend(
            world.database, actions, all_queries(actions), self.deliverer, clock=world.clock
        )
        self.runs = RunRecords(world.database, self.backend, world.clock)
        self.fences = FenceRecords(world.database, world.clock)
        self.recoveries = RecoveryRecords(world.database, self.backend, world.clock)
        self.hosts = HostRecords(world.database, self.backend, world.clock)
        self.operations = OperationRecords(world.database, world.clock)
        self.batches = BatchRecords(world.database, self.backend)

    async def act(self, params: Params, key: str | None = None, **context: Any) -> Receipt:
        """Run an action as a person."""
        who = PERSON.model_copy(update=context)
        return await self.backend.run_action(params, who, key)

    async def refusal(self, params: Params, key: str | None = None) -> EngineError:
        """Why an action was refused, after showing that it left nothing but word of that."""
        before = await self.everything()
        try:
            receipt = await self.act(params, key)
        except EngineError as error:
            after = await self.everything()
            known = {row["id"] for row in before["event"]}
            fresh = [row for row in after.pop("event") if row["id"] not in known]
            assert after == {t: rows for t, rows in before.items() if t != "event"}, (
                "a refused action wrote something"
            )
            assert [row["type"].rpartition(".")[2] for row in fresh] in ([], ["refused"])
            return error
        raise AssertionError(f"accepted as {receipt.operation_id}")

    async def everything(self) -> dict[str, list[Row]]:
        """Every row of every table, at one moment."""

        async def read(connection: AsyncConnection) -> dict[str, list[Row]]:
            return {t.name: await many(connection, _sorted(t)) for t in metadata.sorted_tables}

        return await self.world.database.read(read)

    async def rows(self, table: str) -> list[Row]:
        """Every row of one table, by its key."""
        return await self.world.do(many, _sorted(metadata.tables[table]))

    async def ref(self, host_id: UUID) -> HostRef:
        """A host at its present epoch."""
        row = await self.world.get("host", host_id)
        return HostRef(host_id=host_id, name=row["name"], uri=row["uri"], epoch=row["epoch"])


def columns(rows: Sequence[Row], *names: str) -> list[Any]:
    """One column of each row, or a tuple of several."""
    if len(names) == 1:
        return [row[names[0]] for row in rows]
    return [tuple(row[name] for name in names) for row in rows]


def _sorted(table: sa.Table) -> sa.Select[Any]:
    return table.select().order_by(*table.primary_key)

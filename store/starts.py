"""Whether a run is still to be started, and who else starts on its host.

That no more start at once than may rests on the isolation of the transaction that counts them and
claims one.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from domain.operations import OPEN_STATES, OperationState
from domain.start_turns import STARTS_AT_LIMIT, Starts, Turn
from store.prebuilt import among, prebuilt
from store.rows import changed, many, one
from store.schema import cluster, host, operation, vm
from store.schema_ha import vm_run

BATCH = "batch"
"""The kind of an operation whose children a person has asked for one by one."""


@prebuilt
def _expected(run_id: UUID, operation_id: UUID, /) -> sa.Select[Any]:
    in_service = sa.exists().where(
        host.c.id == vm_run.c.host_id,
        host.c.epoch == vm_run.c.epoch,
        among(host.c.state, [HostState.UP.value, HostState.CONNECTING.value]),
    )
    to_start = [RunState.PLACED.value, RunState.STARTING.value, RunState.RUNNING.value]
    return sa.select(vm_run.c.id).where(
        vm_run.c.id == run_id,
        vm_run.c.operation_id == operation_id,
        among(vm_run.c.state, to_start),
        in_service,
    )


async def expected(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """Whether the run is still this operation's and its host in service at the run's epoch.

    It claims nothing: the last word before `create()` is `runs.begin_start`. Also true of a run
    that runs already, as a step that is repeated finds it.
    """
    return await one(connection, _expected(run_id, operation_id)) is not None


@prebuilt
def _still_of(run_id: UUID, operation_id: UUID, /) -> sa.Select[Any]:
    to_start = [RunState.PLACED.value, RunState.STARTING.value]
    return sa.select(vm_run.c.id).where(
        vm_run.c.id == run_id,
        vm_run.c.operation_id == operation_id,
        among(vm_run.c.state, to_start),
    )


async def still_of(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """Whether a run is this operation's to start, however its host stands."""
    return await one(connection, _still_of(run_id, operation_id)) is not None


@prebuilt
def _limit_of(host_id: UUID, /) -> sa.Select[Any]:
    query = sa.select(host.c.name, cluster.c.starts_per_host)
    return query.join_from(host, cluster, cluster.c.id == host.c.cluster_id).where(
        host.c.id == host_id
    )


@prebuilt
def _turns_on(host_id: UUID, /) -> sa.Select[Any]:
    parent = operation.alias("parent")
    waits = sa.and_(
        operation.c.state == OperationState.WAITING.value,
        sa.func.coalesce(operation.c.reason_code, "") == STARTS_AT_LIMIT,
    )
    return (
        sa.select(
            *(vm_run.c.id, vm_run.c.operation_id, vm_run.c.state, vm_run.c.turn_at),
            *(vm.c.name, vm.c.protected, vm.c.priority, operation.c.priority.label("urgency")),
            waits.label("waits"),
        )
        .join_from(vm_run, vm, vm.c.id == vm_run.c.vm_id)
        .join(operation, operation.c.id == vm_run.c.operation_id)
        .join(parent, parent.c.id == operation.c.parent_id)
        .where(
            vm_run.c.host_id == host_id,
            vm_run.c.active == 1,
            among(vm_run.c.state, [RunState.PLACED.value, RunState.STARTING.value]),
            among(operation.c.state, [state.value for state in OPEN_STATES]),
            parent.c.kind != BATCH,
        )
    )


async def starts_on(connection: AsyncConnection, host_id: UUID) -> Starts:
    """What the engine itself starts on a host, or is to start there: parts of open operations.

    Without those that a person asks for, alone or in a batch.
    """
    limit = await one(connection, _limit_of(host_id))
    assert limit is not None, "a run's host is never deleted"
    turns = [
        Turn(
            run_id=row["id"],
            operation_id=row["operation_id"],
            vm=row["name"],
            urgency=row["urgency"],
            protected=row["protected"],
            priority=row["priority"],
            begun=row["state"] == RunState.STARTING,
            waits=row["waits"],
            since=row["turn_at"],
        )
        for row in await many(connection, _turns_on(host_id))
    ]
    return Starts(host=limit["name"], most=limit["starts_per_host"], turns=tuple(turns))


@prebuilt
def _who_waits() -> sa.Select[Any]:
    waits = operation.c.state == sa.literal(OperationState.WAITING.value)
    code = operation.c.reason_code == sa.literal(STARTS_AT_LIMIT)
    return sa.select(operation.c.id).where(waits, code).limit(1)


async def anybody_waits(connection: AsyncConnection) -> bool:
    """Whether any start waits for its turn, on whatever host; seldom so, and cheap to ask."""
    return await one(connection, _who_waits()) is not None


async def ask_turn(connection: AsyncConnection, run_id: UUID, now: datetime) -> None:
    """Note since when a placed run waits for its turn; repeated, the first time counts."""
    placed = vm_run.c.state == RunState.PLACED.value
    query = vm_run.update().where(vm_run.c.id == run_id, placed, vm_run.c.turn_at.is_(None))
    await changed(connection, query.values(turn_at=now))


async def have_turn(connection: AsyncConnection, run_id: UUID, now: datetime) -> None:
    """Note since when a run has its turn: called once, with its claim."""
    await changed(connection, vm_run.update().where(vm_run.c.id == run_id).values(turn_at=now))

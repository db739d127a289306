"""Operations to steer: starts and recoveries at each point of their life."""

from typing import Any
from uuid import UUID

from domain.operations import OperationState, Outcome, Problem
from engine.actions.hosts import RecoverHost
from engine.actions.operations import (
    CancelOperation,
)
from engine.actions.vms import StartVm
from store import operations, plumbing
from store.rows import Row
from tests.store.engine_room import Engine, columns

FAILED = Problem(code="NO_ANSWER", detail="h1 did not answer within 1 s")


async def row_of(engine: Engine, operation_id: UUID) -> Row:
    row = await engine.world.do(operations.get, operation_id)
    assert row is not None
    return row


async def claim(engine: Engine, operation_id: UUID, attempt: int = 1, run: str = "run-1") -> bool:
    return await engine.world.do(operations.claim, operation_id, attempt, run, engine.world.now)


async def a_start(engine: Engine, name: str = "db") -> UUID:
    """A start that was accepted and has not begun."""
    if not await engine.rows("host"):
        await engine.world.host()
    vm = await engine.world.vm(name)
    return (await engine.act(StartVm(vm_id=vm))).operation_id


async def a_claimed_start(engine: Engine) -> UUID:
    """A start whose workflow Temporal has taken and that has claimed it."""
    operation = await a_start(engine)
    await tell_all(engine)
    assert await claim(engine, operation)
    return operation


async def a_failed_start(engine: Engine) -> UUID:
    """A start that began and failed."""
    operation = await a_claimed_start(engine)
    await engine.operations.close(
        Outcome(operation_id=operation, state=OperationState.FAILED, problem=FAILED)
    )
    return operation


async def tell_all(engine: Engine) -> None:
    """Temporal has taken everything that it was to be told."""
    for row in await engine.rows("outbox"):
        if row["done_at"] is None:
            await engine.world.do(plumbing.delivered, row["id"], engine.world.now)


async def to_tell(engine: Engine, operation: UUID) -> list[tuple[str, str | None]]:
    rows = await engine.world.do(plumbing.waiting_of, operation)
    return columns(rows, "kind", "signal")


async def latest_event(engine: Engine, kind: str) -> Row:
    found: Row = [row for row in await engine.rows("event") if row["type"] == kind][-1]
    return found


async def cancel(engine: Engine, operation: UUID, **context: Any) -> Row:
    """Cancel it; the row of the cancelling action itself."""
    receipt = await engine.act(CancelOperation(operation_id=operation), **context)
    return await row_of(engine, receipt.operation_id)


async def recovering(engine: Engine) -> tuple[UUID, UUID]:
    """A host whose recovery has begun: operation and incident."""
    host = await engine.world.host(state="connecting")
    wish = RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")
    receipt = await engine.act(wish, principal="monitor:m1")
    await tell_all(engine)
    (incident,) = await engine.rows("incident")
    return receipt.operation_id, incident["id"]

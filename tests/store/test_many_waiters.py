"""Many that wait for locks, what takes a lock over instead of waiting, and large batches.

A large batch is cancelled and retried within one transaction that others wait for, so the number of
its statements must not grow with its children. Nothing here races: the tests act one by one.
"""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.actions.hosts import RecoverHost
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.vms import StartVm
from engine.backend import Options
from engine.grants import Grants
from tests.store.engine_room import Engine
from tests.store.many import batch, children, several, starts
from tests.store.world import PERSON

pytestmark = pytest.mark.store


async def test_waiters_far_behind_get_their_locks_and_their_time_outs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.grants.LOOKED_AT", 2)
    world = engine.world
    await world.host()
    busy, free = await world.vm("busy"), await world.vm("free")
    await engine.act(StartVm(vm_id=busy))
    holder = (await engine.act(StartVm(vm_id=free))).operation_id

    async def waits(vm: UUID, seconds: float) -> UUID:
        options = Options(lock_wait_s=seconds)
        return (
            await engine.backend.run_action(StartVm(vm_id=vm), PERSON, options=options)
        ).operation_id

    first = [await waits(busy, 3600) for _ in range(4)]
    short, lucky, next_one = await waits(busy, 5), await waits(free, 3600), await waits(free, 3600)
    await engine.act(CancelOperation(operation_id=holder))
    world.later(60)
    assert await Grants(world.database, engine.backend).grant() == 2
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert rows[lucky]["state"] == "pending"
    assert rows[short]["problem"]["code"] == "LOCK_WAIT_TIMED_OUT"
    assert {rows[one]["state"] for one in (*first, next_one)} == {"waiting"}
    assert await Grants(world.database, engine.backend).grant() == 0
    await engine.backend.close()


async def test_what_takes_a_lock_over_does_not_wait_for_it(engine: Engine) -> None:
    world = engine.world
    host = await world.host("h", state="connecting")
    activation = await world.operation(host, kind="host.activate", target_type="host")
    await world.take("host", host, activation)
    wish = RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")
    options = Options(lock_wait_s=60)
    shown = await engine.backend.dry_run(wish, PERSON)
    assert shown.allowed, shown.problems
    receipt = await engine.backend.run_action(wish, PERSON, options=options)
    await engine.backend.close()
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert rows[receipt.operation_id]["state"] == "pending"
    assert rows[activation]["reason_code"] == "superseded"


async def test_cancelling_and_retrying_a_batch_takes_no_statements_for_each_child(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = await batch(engine, starts(await several(engine, 60)), at_once=5)
    counted: list[str] = []
    execute = AsyncConnection.execute

    async def counting(self: AsyncConnection, *args: Any, **more: Any) -> Any:
        counted.append(str(args[0])[:60])
        return await execute(self, *args, **more)

    monkeypatch.setattr(AsyncConnection, "execute", counting)
    for wish, state in ((CancelOperation, "cancelled"), (RetryOperation, "pending")) * 2:
        counted.clear()
        await engine.act(wish(operation_id=receipt.operation_id))
        assert 0 < len(counted) < 60, counted
        below = await children(engine, receipt.operation_id)
        assert {row["state"] for row in below} == {state}
        locked = await engine.rows("entity_lock")
        assert len(locked) == (60 if state == "pending" else 0)
    below = await children(engine, receipt.operation_id)
    assert {row["attempt"] for row in below} == {3}
    assert all(row["held"] for row in below)

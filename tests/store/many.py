"""Batches in tests: VMs to act on, one call to ask for all, and what became of each item."""

from typing import Any
from uuid import UUID

import pytest

from domain.errors import EngineError
from domain.operations import OperationState, Outcome
from engine.actions.base import Params
from engine.actions.vms import StartVm
from engine.batches import BatchOptions, BatchReceipt
from store import operations
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.world import PERSON

ROOM = 10**6
"""Memory of a host that every VM of a test fits on, in MiB."""

Many = list[Params]


async def several(engine: Engine, count: int, **values: Any) -> list[UUID]:
    """VMs that are down, and a host with room for all of them."""
    await engine.world.host("roomy", memory_mib=ROOM)
    return [await engine.world.vm(f"vm-{number:03}", **values) for number in range(count)]


def starts(vms: list[UUID]) -> Many:
    return [StartVm(vm_id=vm_id) for vm_id in vms]


async def batch(engine: Engine, items: Many, **options: Any) -> BatchReceipt:
    receipt = await engine.backend.run_multiple_actions(items, PERSON, BatchOptions(**options))
    await engine.backend.close()
    return receipt


async def refusal(engine: Engine, items: Many, **options: Any) -> EngineError:
    """Why a batch was refused, after showing that it left nothing but word of that."""
    before = await engine.everything()
    with pytest.raises(EngineError) as raised:
        await batch(engine, items, **options)
    after = await engine.everything()
    assert [row["type"] for row in after.pop("event")] == ["batch.refused"]
    assert after == {table: rows for table, rows in before.items() if table != "event"}
    return raised.value


async def children(engine: Engine, parent_id: UUID) -> list[Row]:
    return await engine.world.do(operations.children, parent_id)


async def ends(
    engine: Engine, operation_id: UUID, state: str = "succeeded", attempt: int = 1
) -> None:
    """A child ends, as its workflow closes it."""
    await engine.operations.claim(operation_id, attempt, f"run-{operation_id}")
    outcome = Outcome(operation_id=operation_id, state=OperationState(state))
    await engine.operations.close(outcome)

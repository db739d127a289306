"""Operations that one operation opens for another object."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import ActionContext, PriorityClass
from domain.operations import OperationState
from domain.orders import StartVmOrder
from engine.refs import policy_of
from store import inventory, operations, plumbing
from store.ids import new_id
from store.rows import Row


def child_row(
    parent: Row, kind: str, workflow: str, target: tuple[str, UUID, str], now: datetime
) -> Row:
    """A pending child that inherits whose request it is and as part of what."""
    same = ("cluster_id", "incident_id", "priority", "principal", "reason", "correlation_id")
    target_type, target_id, target_name = target
    return {field: parent[field] for field in same} | {
        "id": new_id(),
        "kind": kind,
        "state": OperationState.PENDING.value,
        "target_type": target_type,
        "target_id": target_id,
        "target_name": target_name,
        "parent_id": parent["id"],
        "workflow": workflow,
        "created_at": now,
    }


async def order_start(connection: AsyncConnection, vm: Row, parent: Row, now: datetime) -> None:
    """Accept the start of a VM as a child operation, which the relay delivers."""
    cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
    assert cluster is not None
    row = child_row(parent, "vm.start", "StartVm", ("vm", vm["id"], vm["name"]), now)
    context = ActionContext(
        principal=parent["principal"],
        correlation_id=parent["correlation_id"],
        reason="its host rebooted",
        priority=PriorityClass.PROTECTED,
        parent_id=parent["id"],
    )
    order = StartVmOrder(
        operation_id=row["id"],
        context=context,
        policy=policy_of(cluster),
        vm_id=vm["id"],
        vm_name=vm["name"],
    )
    row |= {"priority": int(context.priority), "order": order.model_dump(mode="json")}
    await operations.insert(connection, row)
    await plumbing.take_lock(connection, "vm", vm["id"], row["id"], now)
    await plumbing.post(connection, new_id(), row["id"], now)

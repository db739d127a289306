"""What a move or a start means for a VM's going home: a person's choice of a host is respected."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failback import Failback
from store import failbacks, operations
from store.rows import Row


async def note_move(
    connection: AsyncConnection, vm: Row, host_id: UUID, operation_id: UUID
) -> None:
    """A VM has arrived: at home all is well, and where a person has moved it, it stays."""
    if vm["failback"] != Failback.AUTO:
        return
    if host_id == vm["home_id"]:
        await failbacks.wake(connection, vm["id"])
        return
    move = await operations.get(connection, operation_id)
    whole = move and move["parent_id"] and await operations.get(connection, move["parent_id"])
    # A host that is emptied lets its VMs come back; whoever names a VM means that VM.
    if not (whole and whole["target_type"] == "host"):
        await failbacks.rest(connection, vm["id"], host_id)


async def note_place(
    connection: AsyncConnection, vm: Row, host_id: UUID, *, named: bool, recovery: bool
) -> None:
    """A VM has a place: a recovery ends its rest, and a host that a person names begins it."""
    if vm["failback"] != Failback.AUTO:
        return
    if recovery:
        await failbacks.wake(connection, vm["id"])
    elif named:
        await failbacks.rest(connection, vm["id"], host_id)

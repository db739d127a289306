"""Networks of a cluster: what a VM's card is connected to.

A network is a bridge that has the same name on every host of the cluster, or, without one, QEMU's
own NAT. The engine makes no bridges.
"""

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.errors import Conflict
from domain.inventory import NAME
from domain.locks import Lock, exclusive, shared
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.edits import (
    NAMES_MAX,
    Change,
    Changes,
    Edit,
    Removal,
    change_of,
    check_version,
    confirm,
    counted,
    listed,
    target_of,
    write_change,
)
from engine.actions.named import taken
from store import edits, inventory
from store.ids import new_id
from store.rows import Row

BRIDGE = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,14}$"
"""Names that Linux takes for an interface: the same pattern as that of a card's bridge."""


class CreateNetwork(Params):
    """Add a network to a cluster; without a bridge it is QEMU's own NAT."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    bridge: str | None = Field(default=None, pattern=BRIDGE)


class CreateNetworkAction(Action[CreateNetwork, None]):
    """`network.create`: done within the transaction."""

    params = CreateNetwork
    kind = "network.create"
    permission = Permission.NETWORK_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateNetwork, problems: Problems) -> Plan[None]:
        """Check that the name is free."""
        await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "network", params.name))
        return Plan(
            target=Target("network", new_id(), params.name, params.cluster_id),
            facts=None,
            locks=(shared("cluster", params.cluster_id),),
            steps=("write the network",),
        )

    async def execute(self, tx: Tx, params: CreateNetwork, plan: Plan[None]) -> Done:
        """Write the network."""
        row = params.model_dump() | {"id": plan.target.id, "created_at": tx.now}
        await inventory.insert(tx.connection, "network", row)
        return Done(summary="created", after=params.model_dump(mode="json"))


class NetworkChanges(Changes):
    """What can be changed of a network; a bridge of null makes it QEMU's own NAT."""

    may_be_null: ClassVar[frozenset[str]] = frozenset({"bridge"})

    name: str | None = Field(default=None, pattern=NAME)
    bridge: str | None = Field(default=None, pattern=BRIDGE)


class EditNetwork(NetworkChanges, Edit):
    """Change a network."""

    network_id: UUID


class EditNetworkAction(Action[EditNetwork, Change]):
    """`network.edit`: done within the transaction; running VMs stay where they are connected."""

    params = EditNetwork
    kind = "network.edit"
    permission = Permission.NETWORK_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    async def plan(self, tx: Tx, params: EditNetwork, problems: Problems) -> Plan[Change]:
        """Check the version, and that a new name is free."""
        fields = NetworkChanges.model_fields
        change = await change_of(tx, "network", params, params.network_id, fields, problems)
        return Plan(
            target=target_of("network", change.row),
            facts=change,
            locks=_locks(change.row),
            steps=("write the network",),
        )

    async def execute(self, tx: Tx, params: EditNetwork, plan: Plan[Change]) -> Done:
        """Write what differs."""
        change = plan.facts
        await write_change(tx, "network", change)
        if "bridge" not in change.values:
            return change.done()
        count, names = await edits.users_of(tx.connection, change.row["id"], NAMES_MAX)
        having = counted(count, "VM has it from its", "VMs have it from their")
        note = f"{having} next start on: {listed(names, count)}"
        return change.done(*((note,) if count else ()))


class RemoveNetwork(Removal):
    """Remove a network that no card is on."""

    network_id: UUID


class RemoveNetworkAction(Action[RemoveNetwork, Row]):
    """`network.remove`: done within the transaction."""

    params = RemoveNetwork
    kind = "network.remove"
    permission = Permission.NETWORK_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: RemoveNetwork, problems: Problems) -> Plan[Row]:
        """Check that no VM has a card on it."""
        row = await existing(tx, "network", params.network_id)
        check_version(params.expected_version, "network", row, problems)
        count, names = await edits.users_of(tx.connection, row["id"], NAMES_MAX)
        problems.unless(
            count == 0,
            Conflict(
                "NETWORK_IN_USE",
                f"{counted(count, 'VM has', 'VMs have')} a card on {row['name']}:"
                f" {listed(names, count)}",
                next_step="take these cards away, or put them on another network",
                network=row["name"],
                count=count,
            ),
        )
        return Plan(
            target=target_of("network", row),
            facts=row,
            locks=_locks(row),
            steps=("delete the network",),
        )

    async def execute(self, tx: Tx, params: RemoveNetwork, plan: Plan[Row]) -> Done:
        """Delete it, if it is still unused."""
        row = plan.facts
        deleted = await edits.delete_network(tx.connection, row["id"], row["version"])
        confirm(tx, "network", row, written=deleted)
        return Done(summary="removed", before={"name": row["name"], "bridge": row["bridge"]})


def _locks(row: Row) -> tuple[Lock, ...]:
    return exclusive("network", row["id"]), shared("cluster", row["cluster_id"])

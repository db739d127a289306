"""VMs as configuration: adding them."""

from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.inventory import MAX_PRIORITY, Boot, Disk
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.named import NAME, taken
from store import inventory
from store.ids import new_id


class CreateVm(Params):
    """Add a VM; it is not started."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    memory_mib: int = Field(ge=16, le=16 * 1024 * 1024)
    vcpus: int = Field(default=1, ge=1, le=512)
    protected: bool = False
    priority: int = Field(default=50, ge=0, le=MAX_PRIORITY)
    depends_on: tuple[UUID, ...] = Field(default=(), max_length=64)
    disks: tuple[Disk, ...] = Field(default=(), max_length=32)
    boot: Boot | None = None


class CreateVmAction(Action[CreateVm, None]):
    """`vm.create`: done within the transaction. A new VM can close no dependency cycle."""

    params = CreateVm
    kind = "vm.create"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateVm, problems: Problems) -> Plan[None]:
        """Check that the name is free and what it depends on is there."""
        await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "vm", params.name))
        for other in params.depends_on:
            await existing(tx, "vm", other)
        target = Target("vm", new_id(), params.name, params.cluster_id)
        return Plan(target=target, facts=None, steps=("write the VM",))

    async def execute(self, tx: Tx, params: CreateVm, plan: Plan[None]) -> Done:
        """Write the VM and what it depends on."""
        vm_id = plan.target.id
        spec = params.model_dump(mode="json", include={"disks", "boot"})
        row = params.model_dump(exclude={"disks", "boot", "depends_on"}) | {
            "id": vm_id,
            "spec": spec,
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "vm", row)
        await inventory.add_dependencies(tx.connection, vm_id, tuple(set(params.depends_on)))
        return Done(summary="created", after=params.model_dump(mode="json"))

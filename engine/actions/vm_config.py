"""VMs as configuration: adding, changing and deleting them. None of it touches a host.

What a guest is made of takes effect when it is next defined, which is at its next start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.errors import Conflict, Refused
from domain.failback import Failback
from domain.hung_guests import HANG_AFTER_MAX_S, HANG_AFTER_MIN_S, HANG_AFTER_S
from domain.inventory import (
    MAX_PRIORITY,
    NAME,
    Boot,
    Disk,
    OnGuestShutdown,
    OnHang,
    OnIoError,
    VmState,
)
from domain.locks import exclusive, shared
from domain.permissions import Permission
from domain.readiness import ReadyRule
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.edits import Changes, Edit, Removal, check_version, confirm, counted, listed
from engine.actions.named import taken
from engine.actions.vm_homes import begin_anew, check_home
from engine.actions.vm_parts import (
    DEPENDENCIES_MAX,
    GROUPS_MAX,
    NICS_MAX,
    NicWish,
    Subject,
    check_dependencies,
    check_groups,
    plan_cards,
)
from engine.actions.vms import unproven, vm_target
from store import affinity, edits, inventory, vms
from store.ids import new_id
from store.rows import Row

MEMORY_MIB_MAX = 16 * 1024 * 1024
VCPUS_MAX = 512
DISKS_MAX = 32
BUDGET_S_MAX = 24 * 3600

TRIES_MAX = 100

COLUMNS = frozenset({"name", "memory_mib", "vcpus", "protected", "priority", "budget_s"}) | {
    "on_guest_shutdown",
    "on_io_error",
    "on_hang",
    "hang_after_s",
    "max_restart",
    "max_relocate",
    "may_be_stopped",
    "ready",
    "failback",
    "home_id",
}
SPEC = frozenset({"disks", "boot"})
AT_NEXT_START = frozenset({"memory_mib", "vcpus", "nics"}) | SPEC
"""What the guest only sees when it is defined anew."""


class CreateVm(Params):
    """Add a VM; it is not started.

    `budget_s` is the time within which a protected VM should run again after its host failed. Once
    its start has failed or its guest has ended by itself, it is started again `max_restart` times
    on one host, and on `max_relocate` other hosts. Those that depend on it start once it is `ready`
    (`domain.readiness`). It hangs once its guest agent is silent for `hang_after_s` (`on_hang`).
    Where its cluster makes room, it `may_be_stopped` for one of higher priority. It is started at
    its home where that can be, and moved back there by itself with `failback` (`domain.failback`).
    """

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    memory_mib: int = Field(ge=16, le=MEMORY_MIB_MAX)
    vcpus: int = Field(default=1, ge=1, le=VCPUS_MAX)
    protected: bool = False
    priority: int = Field(default=50, ge=0, le=MAX_PRIORITY)
    budget_s: int | None = Field(default=None, ge=1, le=BUDGET_S_MAX)
    on_guest_shutdown: OnGuestShutdown = OnGuestShutdown.STAY
    on_io_error: OnIoError = OnIoError.RESUME
    on_hang: OnHang = OnHang.OFF
    hang_after_s: int = Field(default=HANG_AFTER_S, ge=HANG_AFTER_MIN_S, le=HANG_AFTER_MAX_S)
    max_restart: int = Field(default=3, ge=0, le=TRIES_MAX)
    max_relocate: int = Field(default=3, ge=0, le=TRIES_MAX)
    may_be_stopped: bool = True
    failback: Failback = Failback.OFF
    home_id: UUID | None = None
    ready: ReadyRule | None = None
    depends_on: tuple[UUID, ...] = Field(default=(), max_length=DEPENDENCIES_MAX)
    disks: tuple[Disk, ...] = Field(default=(), max_length=DISKS_MAX)
    boot: Boot | None = None
    nics: tuple[NicWish, ...] = Field(default=(), max_length=NICS_MAX)
    affinity_group_ids: tuple[UUID, ...] = Field(default=(), max_length=GROUPS_MAX)


class CreateVmAction(Action[CreateVm, tuple[Row, ...]]):
    """`vm.create`: done within the transaction."""

    params = CreateVm
    kind = "vm.create"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateVm, problems: Problems) -> Plan[tuple[Row, ...]]:
        """Check the name, the addresses of its cards, and what else it refers to."""
        await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "vm", params.name))
        vm = Subject(new_id(), params.name, params.cluster_id)
        await check_home(tx, vm.name, vm.cluster_id, params.home_id, problems)
        if params.depends_on:
            await check_dependencies(tx, vm, params.depends_on, problems, new=True)
        if params.affinity_group_ids:
            await check_groups(tx, vm, params.affinity_group_ids, problems)
        cards = await plan_cards(tx, vm, params.nics, problems) if params.nics else ()
        return Plan(
            target=Target("vm", vm.id, vm.name, vm.cluster_id),
            facts=cards,
            locks=(shared("cluster", vm.cluster_id),),
            steps=("write the VM",),
        )

    async def execute(self, tx: Tx, params: CreateVm, plan: Plan[tuple[Row, ...]]) -> Done:
        """Write the VM and what belongs to it."""
        vm_id, cards = plan.target.id, plan.facts
        row = params.model_dump(include=set(COLUMNS | {"cluster_id"}))
        row["ready"] = params.ready and params.ready.model_dump(mode="json")
        row |= {"id": vm_id, "spec": params.model_dump(mode="json", include=set(SPEC))}
        await inventory.insert(tx.connection, "vm", row | {"created_at": tx.now})
        if params.depends_on:
            await vms.put_dependencies(tx.connection, vm_id, set(params.depends_on))
        if cards:
            await vms.put_nics(tx.connection, vm_id, cards)
        if params.affinity_group_ids:
            await affinity.put_groups(tx.connection, vm_id, params.affinity_group_ids)
        after = params.model_dump(mode="json") | {"nics": plain_cards(cards)}
        return Done(summary="created", after=after)


class VmChanges(Changes):
    """What can be changed of a VM; cards, disks, dependencies and groups are given whole."""

    may_be_null: ClassVar[frozenset[str]] = frozenset({"budget_s", "boot", "ready", "home_id"})

    name: str | None = Field(default=None, pattern=NAME)
    memory_mib: int | None = Field(default=None, ge=16, le=MEMORY_MIB_MAX)
    vcpus: int | None = Field(default=None, ge=1, le=VCPUS_MAX)
    protected: bool | None = None
    priority: int | None = Field(default=None, ge=0, le=MAX_PRIORITY)
    budget_s: int | None = Field(default=None, ge=1, le=BUDGET_S_MAX)
    on_guest_shutdown: OnGuestShutdown | None = None
    on_io_error: OnIoError | None = None
    on_hang: OnHang | None = None
    hang_after_s: int | None = Field(default=None, ge=HANG_AFTER_MIN_S, le=HANG_AFTER_MAX_S)
    max_restart: int | None = Field(default=None, ge=0, le=TRIES_MAX)
    max_relocate: int | None = Field(default=None, ge=0, le=TRIES_MAX)
    may_be_stopped: bool | None = None
    failback: Failback | None = None
    home_id: UUID | None = None
    ready: ReadyRule | None = None
    depends_on: tuple[UUID, ...] | None = Field(default=None, max_length=DEPENDENCIES_MAX)
    disks: tuple[Disk, ...] | None = Field(default=None, max_length=DISKS_MAX)
    boot: Boot | None = None
    nics: tuple[NicWish, ...] | None = Field(default=None, max_length=NICS_MAX)
    affinity_group_ids: tuple[UUID, ...] | None = Field(default=None, max_length=GROUPS_MAX)


class EditVm(VmChanges, Edit):
    """Change a VM."""

    vm_id: UUID


@dataclass(frozen=True)
class VmChange:
    """A VM as it is, and what of it is to be otherwise, as JSON has it.

    `cards` are the rows of its cards where those change; `state` is the VM's.
    """

    row: Row
    state: VmState
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    cards: tuple[Row, ...] = field(default=())


class EditVmAction(Action[EditVm, VmChange]):
    """`vm.edit`: done within the transaction, whatever the VM is doing.

    What a start in flight is made of waits for that start: only then the VM's lock is asked for.
    """

    params = EditVm
    kind = "vm.edit"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    async def plan(self, tx: Tx, params: EditVm, problems: Problems) -> Plan[VmChange]:
        """Check the version, a new name, and whatever else it is to refer to."""
        row = await existing(tx, "vm", params.vm_id)
        check_version(params.expected_version, "vm", row, problems)
        change = await _change(tx, params, row, problems)
        if "name" in change.after:
            problems.extend(await taken(tx, "vm", change.after["name"]))
            problems.unless(change.state is VmState.DOWN, _named_while_up(change))
        own = change.after.keys() & (AT_NEXT_START | {"name"})
        return Plan(
            target=vm_target(row),
            facts=change,
            state=change.state,
            locks=(exclusive("vm", row["id"]),) if own else (),
            steps=("write the VM",),
            protected=row["protected"],
        )

    async def execute(self, tx: Tx, params: EditVm, plan: Plan[VmChange]) -> Done:
        """Write what differs."""
        change = plan.facts
        row, after = change.row, change.after
        woken = await begin_anew(tx, row, set(params.model_fields_set), set(after))
        if not after:
            return Done(summary="it goes home by itself again" if woken else "nothing to change")
        values = {name: after[name] for name in COLUMNS & after.keys()}
        values |= {"home_id": params.home_id} if "home_id" in after else {}
        if SPEC & after.keys():
            values["spec"] = row["spec"] | {name: after[name] for name in SPEC & after.keys()}
        written = await edits.edit(tx.connection, "vm", row["id"], row["version"], values)
        confirm(tx, "vm", row, written=written)
        if "depends_on" in after:
            await vms.put_dependencies(tx.connection, row["id"], set(params.depends_on or ()))
        if "nics" in after:
            await vms.put_nics(tx.connection, row["id"], change.cards)
        if "affinity_group_ids" in after:
            groups = params.affinity_group_ids or ()
            await affinity.put_groups(tx.connection, row["id"], groups)
        return Done(summary=_summary(change), before=change.before, after=after)


async def _change(tx: Tx, params: EditVm, row: Row, problems: Problems) -> VmChange:
    """What differs between the VM and what is wanted of it."""
    said = params.model_dump(mode="json", include=set(VmChanges.model_fields))
    cards = await vms.nics_of(tx.connection, [row["id"]])
    vm = Subject(row["id"], row["name"], row["cluster_id"], cards.get(row["id"], ()))
    planned: tuple[Row, ...] = ()
    await check_home(tx, vm.name, vm.cluster_id, params.home_id, problems)
    if params.depends_on is not None:
        await check_dependencies(tx, vm, params.depends_on, problems)
        said["depends_on"] = _ids(params.depends_on)
    if params.affinity_group_ids is not None:
        groups = await check_groups(tx, vm, params.affinity_group_ids, problems)
        said["affinity_group_ids"] = _ids(groups)
    if params.nics is not None:
        planned = await plan_cards(tx, vm, params.nics, problems)
        said["nics"] = plain_cards(planned)
    now = await _plain(tx, row, vm.cards)
    after = {name: value for name, value in said.items() if now[name] != value}
    before = {name: now[name] for name in after}
    return VmChange(row, await tx.facts.state_of_vm(row["id"]), before, after, planned)


async def _plain(tx: Tx, row: Row, cards: tuple[Row, ...]) -> dict[str, Any]:
    """All that can be changed of a VM, as JSON has it."""
    groups = await affinity.groups_of_vm(tx.connection, row["id"])
    disks = [Disk.model_validate(disk).model_dump(mode="json") for disk in row["spec"]["disks"]]
    return {name: row[name] for name in COLUMNS} | {
        "disks": disks,
        "boot": row["spec"]["boot"],
        "home_id": row["home_id"] and str(row["home_id"]),
        "nics": plain_cards(cards),
        "depends_on": _ids(await vms.depends_on(tx.connection, row["id"])),
        "affinity_group_ids": _ids(group["id"] for group in groups),
    }


def _ids(ids: Any) -> list[str]:
    return [str(one) for one in sorted(set(ids))]


def plain_cards(cards: tuple[Row, ...]) -> list[dict[str, str]]:
    """Cards as JSON has them."""
    fields = ("network_id", "mac", "model")
    return [{name: str(card[name]) for name in fields} for card in cards]


def _summary(change: VmChange) -> str:
    later = sorted(change.after.keys() & AT_NEXT_START)
    said = f"changed {', '.join(sorted(change.after))}"
    if not later or change.state is VmState.DOWN:
        return said
    return f"{said}; it runs: {', '.join(later)} will be seen at its next start"


def _named_while_up(change: VmChange) -> Refused:
    return Conflict(
        "VM_NOT_DOWN",
        f"{change.row['name']} is {change.state}, and its guest carries its name",
        next_step="stop it before it gets another name",
        vm=change.row["name"],
        state=change.state.value,
    )


class DeleteVm(Removal):
    """Delete a VM that is down. Its disks stay where they are."""

    vm_id: UUID


class DeleteVmAction(Action[DeleteVm, Row]):
    """`vm.delete`: done within the transaction; its runs and incidents stay as history."""

    params = DeleteVm
    kind = "vm.delete"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: DeleteVm, problems: Problems) -> Plan[Row]:
        """Check that nothing may run of it, and that no other VM waits for it."""
        row = await existing(tx, "vm", params.vm_id)
        check_version(params.expected_version, "vm", row, problems)
        problems.extend(await unproven(tx, row))
        waiting = await vms.dependants(tx.connection, row["id"])
        problems.unless(not waiting, _waited_for(row, waiting))
        return Plan(
            target=vm_target(row),
            facts=row,
            state=await tx.facts.state_of_vm(row["id"]),
            locks=(exclusive("vm", row["id"]),),
            steps=("take the VM out of the inventory", "leave its disks where they are"),
            protected=row["protected"],
        )

    async def execute(self, tx: Tx, params: DeleteVm, plan: Plan[Row]) -> Done:
        """Date its removal, if it is still down."""
        row = plan.facts
        cards = await vms.nics_of(tx.connection, [row["id"]])
        before = await _plain(tx, row, cards.get(row["id"], ()))
        removed = await vms.remove(tx.connection, row, tx.now)
        confirm(tx, "vm", row, written=removed)
        count = len(before["disks"])
        disks = counted(count, "disk stays where it is", "disks stay where they are")
        kept = f"; its {disks}" if count else ""
        return Done(summary=f"deleted{kept}", before=before)

    def forbidden(self, params: DeleteVm, plan: Plan[Row], allowed: tuple[str, ...]) -> Refused:
        """It runs, or nobody knows."""
        row = plan.facts
        return Conflict(
            "VM_NOT_DOWN",
            f"{row['name']} is {plan.state}: only a VM that is known to be down is deleted",
            next_step="stop it first; of a silent host, wait until its incident is settled",
            vm=row["name"],
            state=plan.state,
        )


def _waited_for(row: Row, waiting: tuple[str, ...]) -> Refused:
    return Conflict(
        "VM_IN_USE",
        f"{counted(len(waiting), 'VM starts', 'VMs start')} after {row['name']}: {listed(waiting)}",
        next_step="take it out of their dependencies first",
        vm=row["name"],
        count=len(waiting),
    )

"""Taking over guests that ran on a host before the engine knew them.

The action only opens the way: what the guest is, and whether it can be taken over at all, is read
on its host by the operation's first step.
"""

from dataclasses import dataclass
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, Refused
from domain.foreign import FIRST_GENERATION, unfit_name
from domain.inventory import MAX_PRIORITY, NAME
from domain.locks import exclusive, shared
from domain.matrix import allowed_in, is_allowed
from domain.operations import Problem
from domain.orders import ImportVmOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.named import taken
from engine.refs import host_ref, policy_of
from store import inventory, observations, operations, vms
from store.rows import Row

NAME_SHOWN_MAX = 64
MARKING = "import.adopt"
"""The step after which the guest may carry the mark of its import."""


class ImportVm(Params):
    """Take over a guest of a host; without a name it keeps its own."""

    host_id: UUID
    guest_id: UUID
    name: str | None = Field(default=None, pattern=NAME)
    protected: bool = False
    priority: int = Field(default=50, ge=0, le=MAX_PRIORITY)


@dataclass(frozen=True)
class ImportFacts:
    """What importing looks at; the name is the guest's own, as its host was heard to call it."""

    host: Row
    cluster: Row
    guest_name: str


class ImportVmAction(Action[ImportVm, ImportFacts]):
    """`vm.import`: the guest keeps its UUID as its id, and runs on untouched."""

    params = ImportVm
    kind = "vm.import"
    permission = Permission.VM_CONFIGURE
    workflow = "ImportVm"

    async def plan(self, tx: Tx, params: ImportVm, problems: Problems) -> Plan[ImportFacts]:
        """Check that the host is in service, and that neither id nor name is taken."""
        host = await existing(tx, "host", params.host_id)
        cluster = await existing(tx, "cluster", host["cluster_id"])
        heard = await _heard_name(tx, params)
        problems.extend(_host_unfit(host))
        mine = await _check_id(tx, params.guest_id, problems)
        wanted = params.name or heard
        unfit = None if wanted is None else unfit_name(wanted)
        if unfit is not None:
            problems.append(unfit)
        elif wanted is not None and not mine:
            problems.extend(await taken(tx, "vm", wanted))
        name = heard or params.name or str(params.guest_id)
        return Plan(
            target=Target("vm", params.guest_id, name[:NAME_SHOWN_MAX], cluster["id"]),
            facts=ImportFacts(host, cluster, name),
            locks=(shared("host", host["id"]), exclusive("vm", params.guest_id)),
            steps=("read the guest", "write the VM, and its run if it runs", "mark it as ours"),
            protected=params.protected,
        )

    async def execute(self, tx: Tx, params: ImportVm, plan: Plan[ImportFacts]) -> Done:
        """Order the import."""
        facts = plan.facts
        order = ImportVmOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(facts.cluster),
            host=host_ref(facts.host),
            guest_id=params.guest_id,
            guest_name=facts.guest_name,
            name=params.name,
            protected=params.protected,
            priority=params.priority,
        )
        return Done(order=order, data={"host": facts.host["name"]})

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Make the guest foreign again as far as rows go: its host is not asked from here.

        Rows that stayed would name a copy that no step has marked, which the engine would neither
        find on its host nor ever touch, and start a second one elsewhere.
        """
        guest_id, name = operation["target_id"], operation["target_name"]
        taken_back = await take_back(tx.connection, operation["id"], guest_id)
        if taken_back is None:
            return f"{name} was not recorded"
        if not taken_back:
            return f"{name} is left to its new owner"
        tx.facts.forget("vm", guest_id)
        return f"{name} is left on {operation['order']['host']['name']}, and is no VM of ours"

    async def give_way(self, tx: Tx, operation: Row) -> str:
        """The same: whoever takes the host over must not follow a copy that may be unmarked."""
        return await self.undo(tx, operation)

    async def left(self, tx: Tx, operation: Row) -> Problem | None:
        """The mark, which `adopt` may have set: it names this import, and hides the guest."""
        steps = await operations.steps(tx.connection, operation["id"])
        recorded = await inventory.get(tx.connection, "vm", operation["target_id"])
        if recorded is not None or all(step["name"] != MARKING for step in steps):
            return None
        name, host = operation["target_name"], operation["order"]["host"]["name"]
        return Problem(
            code="GUEST_MARKED",
            detail=f"{name} on {host} is no VM of ours and may carry the mark of this import, with "
            "which it is in no list of foreign guests",
            next_step=f"`holdfast op retry {operation['id']}` imports it after all; to leave it, "
            "remove the element of holdfast.dev from its metadata (`virsh metadata --remove`)",
            context={"guest": name, "host": host},
        )


async def take_back(connection: AsyncConnection, operation_id: UUID, guest_id: UUID) -> bool | None:
    """Remove the rows that an import wrote; None: there are none, False: they are another's now."""
    vm = await inventory.get(connection, "vm", guest_id, removed=True)
    if vm is None:
        return None
    if vm["removed_at"] is not None or not is_recorded_by(vm, operation_id):
        return False
    return await vms.unrecord(connection, guest_id, operation_id)


async def _heard_name(tx: Tx, params: ImportVm) -> str | None:
    """The guest's name by the host's newest sample; a guest that is down is in none."""
    sample = await observations.newest_sample(tx.connection, params.host_id)
    guests = [] if sample is None else sample["guests"]
    found = (guest["name"] for guest in guests if guest["vm_id"] == str(params.guest_id))
    return next(found, None)


async def _check_id(tx: Tx, guest_id: UUID, problems: Problems) -> bool:
    """Whether the VM is there because an earlier try of this very operation wrote it."""
    row = await inventory.get(tx.connection, "vm", guest_id, removed=True)
    mine = row is not None and is_recorded_by(row, tx.operation_id)
    if row is not None and row["removed_at"] is None and not mine:
        problems.append(already_ours(row))
    return mine


def is_recorded_by(vm: Row, operation_id: UUID) -> bool:
    """Whether an import wrote this VM, and no start of it has followed since."""
    return claim_of(vm) == operation_id


def claim_of(vm: Row) -> UUID | None:
    """The import whose mark a VM's copy carries, or is to carry; None once it was started anew."""
    by = vm["spec"].get("imported_by")
    return UUID(by) if by and vm["generation"] == FIRST_GENERATION else None


def already_ours(row: Row) -> Conflict:
    """The refusal of a guest whose UUID is the id of a VM."""
    return Conflict(
        "GUEST_ALREADY_OURS",
        f"the guest {row['id']} is the VM {row['name']}",
        next_step="use that VM; a copied guest needs a UUID of its own before it is imported",
        vm=row["name"],
    )


def _host_unfit(host: Row) -> tuple[Refused, ...]:
    if is_allowed("host", "vm.import", host["state"]):
        return ()
    states = " or ".join(allowed_in("host", "vm.import"))
    return (
        Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}; its guests are imported while it is {states}",
            next_step=f"wait until it is {states}, or bring it there",
            host=host["name"],
            state=host["state"],
        ),
    )

"""Moving a running VM to another host without stopping it."""

from dataclasses import dataclass
from uuid import UUID

from domain.errors import Conflict, Refused
from domain.inventory import HostState, RunState, VmState
from domain.locks import exclusive
from domain.orders import MigrateVmOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.vms import VmFacts, host_for, moving, silent, vm_facts, vm_target
from engine.refs import policy_of
from store import migrating
from store.rows import Row


class MigrateVm(Params):
    """Move a running VM, to a host of the caller's choice or of the engine's."""

    vm_id: UUID
    host_id: UUID | None = None


@dataclass(frozen=True)
class _Where:
    """Where it is to go: None leaves the choice to the engine."""

    vm: VmFacts
    target: Row | None


class MigrateVmAction(Action[MigrateVm, _Where]):
    """`vm.migrate`: refused unless the VM runs on a host that answers."""

    params = MigrateVm
    kind = "vm.migrate"
    permission = Permission.VM_OPERATE
    workflow = "MigrateVm"
    pausable = True
    collects = True
    reopens = True  # while its run names two hosts, nothing else settles it

    async def plan(self, tx: Tx, params: MigrateVm, problems: Problems) -> Plan[_Where]:
        """Check that the VM runs, and that its target is another host in service."""
        facts = await vm_facts(tx, params.vm_id)
        vm, run = facts.vm, facts.run
        next_step = "choose a host of its cluster, or leave the choice to the engine"
        named = params.host_id
        target = None if named is None else await host_for(tx, vm, named, next_step=next_step)
        if target is not None:
            problems.extend(_unfit(facts, target))
        mine = run is not None and run["moved_by"] == tx.operation_id
        where = "the host with the most room" if target is None else target["name"]
        return Plan(
            target=vm_target(vm),
            facts=_Where(facts, target),
            # A later try goes on with what an earlier one has left.
            state=VmState.UP if mine else await tx.facts.state_of_vm(vm["id"]),
            locks=(exclusive("vm", vm["id"]),),
            steps=(f"reserve a place on {where}", "move it", "read both hosts"),
            protected=vm["protected"],
        )

    async def execute(self, tx: Tx, params: MigrateVm, plan: Plan[_Where]) -> Done:
        """Order the migration."""
        vm = plan.facts.vm.vm
        order = MigrateVmOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.vm.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            host_id=params.host_id,
        )
        return Done(order=order)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Nothing is taken back here: whose the VM is can only be read from both hosts."""
        if await migrating.of_operation(tx.connection, operation["id"]) is not None:
            return "it may run on either of two hosts"
        return "nothing was moved"

    async def unsettled(self, tx: Tx, operation: Row) -> bool:
        """Its run names two hosts."""
        return await migrating.of_operation(tx.connection, operation["id"]) is not None

    def forbidden(self, params: MigrateVm, plan: Plan[_Where], allowed: tuple[str, ...]) -> Refused:
        """It does not run, or nobody knows."""
        facts = plan.facts.vm
        vm, run, host = facts.vm, facts.run, facts.host
        if plan.state == VmState.UNKNOWN and host is not None:
            return silent(vm, host)
        if plan.state == VmState.MIGRATING:
            return moving(vm)
        return Conflict(
            "VM_NOT_RUNNING",
            f"{vm['name']} is {plan.state if run is None else run['state']}; only a VM that runs "
            "can be moved",
            next_step="start it where it is to run, or wait until it runs",
            vm=vm["name"],
            state=RunState.ENDED.value if run is None else run["state"],
        )


def _unfit(facts: VmFacts, target: Row) -> list[Refused]:
    vm, run = facts.vm, facts.run
    if run is not None and run["host_id"] == target["id"]:
        return [
            Conflict(
                "VM_THERE_ALREADY",
                f"{vm['name']} runs on {target['name']} already",
                next_step="choose another host, or leave the choice to the engine",
                vm=vm["name"],
                host=target["name"],
            )
        ]
    if target["state"] != HostState.UP:
        return [
            Conflict(
                "HOST_STATE_FORBIDS",
                f"{target['name']} is {target['state']}; a VM is moved only to a host that is up",
                next_step=f"choose another host, or `holdfast host activate {target['name']}`",
                host=target["name"],
                state=target["state"],
            )
        ]
    return []

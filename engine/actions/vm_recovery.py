"""Seeing to a VM whose guest ended by itself."""

from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.errors import Conflict
from domain.inventory import HostState, RunState, VmState
from domain.locks import exclusive
from domain.orders import RecoverVmOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.vms import VmFacts, vm_facts, vm_target
from engine.refs import policy_of, run_ref
from store import ended_runs
from store.rows import Row


class RecoverVm(Params):
    """The guest of a run is not running any more, or `hung`, though nobody asked for that."""

    vm_id: UUID
    run_id: UUID
    why: str = Field(max_length=1000)
    reported_by: str = Field(max_length=64)
    hung: bool = Field(default=False, exclude_if=lambda hung: not hung)


class RecoverVmAction(Action[RecoverVm, VmFacts]):
    """`vm.recover`: only while the run is the VM's, and nobody else is at work on the VM.

    A report is a suspicion: its workflow reads the guest's host before it believes anything.
    """

    params = RecoverVm
    kind = "vm.recover"
    permission = Permission.VM_RECOVER
    priority = PriorityClass.RECOVERY
    workflow = "RecoverVm"
    idempotent = True
    audited = False
    external = False

    async def plan(self, tx: Tx, params: RecoverVm, problems: Problems) -> Plan[VmFacts]:
        """Check that the report is about what runs now, where the engine may act by itself."""
        facts = await vm_facts(tx, params.vm_id)
        facts = await self._of_earlier_try(tx, facts)
        vm, run, host = facts.vm, facts.run, facts.host
        mine = run is not None and run["active"] is None
        if run is None or not (run["id"] == params.run_id and (mine or _runs(run))):
            problems.append(_not_its_run(facts))
        elif host is not None and (host["state"], host["epoch"]) != (HostState.UP, run["epoch"]):
            problems.append(_host_not_up(facts))
        if not facts.cluster["armed"]:
            problems.append(disarmed(vm["name"]))
        return Plan(
            target=vm_target(vm),
            facts=facts,
            state=VmState.UP if mine else await tx.facts.state_of_vm(vm["id"]),
            locks=(exclusive("vm", vm["id"]),),
            steps=("read its host", "close its run", "start it again where it is protected"),
            protected=vm["protected"],
        )

    async def execute(self, tx: Tx, params: RecoverVm, plan: Plan[VmFacts]) -> Done:
        """Order to look at it."""
        vm, run, host = plan.facts.vm, plan.facts.run, plan.facts.host
        assert run is not None
        assert host is not None
        virt_type, nics = plan.facts.cluster["virt_type"], await tx.facts.nics_of(vm["id"])
        order = RecoverVmOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            run=run_ref(run, vm, host, virt_type, nics),
            closed=run["active"] is None,
            hung=params.hung,
        )
        return Done(order, data={"why": params.why, "host": host["name"]})

    async def _of_earlier_try(self, tx: Tx, facts: VmFacts) -> VmFacts:
        """A later try of an operation goes on with the run that an earlier one closed."""
        if facts.run is not None or tx.attempt == 1:
            return facts
        run = await ended_runs.last(tx.connection, facts.vm["id"])
        host = None if run is None else await tx.facts.get("host", run["host_id"])
        return VmFacts(vm=facts.vm, cluster=facts.cluster, run=run, host=host)


def _runs(run: Row) -> bool:
    return bool(run["state"] == RunState.RUNNING)


def disarmed(vm: str) -> Conflict:
    """The refusal to act by itself in a cluster where that is switched off."""
    return Conflict(
        "DISARMED",
        f"{vm} is not seen to: automatic action is switched off in its cluster",
        next_step="`holdfast cluster arm NAME`, or start the VM by hand",
        vm=vm,
    )


def _not_its_run(facts: VmFacts) -> Conflict:
    vm, run = facts.vm, facts.run
    how = "is down" if run is None else f"is {run['state']} in generation {run['generation']}"
    return Conflict(
        "RUN_MOVED_ON",
        f"the report is about an earlier run of {vm['name']}, which {how}",
        next_step="nothing to do: look at the VM",
        vm=vm["name"],
    )


def _host_not_up(facts: VmFacts) -> Conflict:
    assert facts.host is not None
    assert facts.run is not None
    host = facts.host
    return Conflict(
        "HOST_STATE_FORBIDS",
        f"{facts.vm['name']} is not seen to: {host['name']} is {host['state']} at epoch "
        f"{host['epoch']}, the VM ran there in epoch {facts.run['epoch']}",
        next_step="the host's own recovery or activation settles its VMs",
        host=host["name"],
        state=host["state"],
    )

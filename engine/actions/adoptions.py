"""Making the copy of a VM that somebody moved by hand the VM's run."""

from collections.abc import Iterator

from domain.errors import Conflict, Refused
from domain.inventory import HostState, VmState
from domain.orders import AdoptCopyOrder
from engine.actions.base import Done, Plan, Tx
from engine.actions.copies import CopyAction, CopyFacts, CopyOf
from engine.refs import host_ref, policy_of, run_ref
from store.rows import Row


class AdoptCopy(CopyOf):
    """Make the one living copy of a VM, on the host to which somebody moved it, the VM's run."""


class AdoptCopyAction(CopyAction[AdoptCopy]):
    """`vm.adopt_copy`: refused unless the VM should run, on another host that is up."""

    params = AdoptCopy
    kind = "vm.adopt_copy"
    workflow = "AdoptCopy"
    registered = True
    preempts = frozenset({"vm.recover"})  # that waits for somebody to say what the copy is
    acts = "adoption.mark"  # from then on the copy may carry a newer mark
    untouched = "nothing was adopted"
    touched = "the copy on {host} may have been adopted: `holdfast vm show` tells where it runs"
    if_the_run = "name the host on which it really runs"

    def steps(self, facts: CopyFacts) -> tuple[str, ...]:
        """What will be done, in words."""
        own = facts.vm.host
        left = "the host where it should run" if own is None else own["name"]
        return (
            "read both hosts",
            f"mark the copy on {facts.host['name']} as the VM's next run",
            "record it",
            f"undefine what is left on {left}",
        )

    async def execute(self, tx: Tx, params: AdoptCopy, plan: Plan[CopyFacts]) -> Done:
        """Order its adoption."""
        facts, host = plan.facts.vm, plan.facts.host
        vm, run, own = facts.vm, facts.run, facts.host
        assert run is not None
        assert own is not None
        nics = await tx.facts.nics_of(vm["id"])
        order = AdoptCopyOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(facts.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            host=host_ref(host),
            run=run_ref(run, vm, own, facts.cluster["virt_type"], nics),
        )
        return Done(order=order, data={"host": host["name"], "was": own["name"]})

    def unfit(self, params: AdoptCopy, facts: CopyFacts) -> Iterator[Refused]:
        """The host of the copy has to be in service."""
        host, run = facts.host, facts.vm.run
        if host["state"] != HostState.UP and (run is None or run["host_id"] != host["id"]):
            yield Conflict(
                "HOST_STATE_FORBIDS",
                f"{host['name']} is {host['state']}; a VM is adopted only on a host that is up",
                next_step=f"`holdfast host activate {host['name']}`, then adopt it",
                host=host["name"],
                state=host["state"],
            )

    def too_early(self, plan: Plan[CopyFacts], allowed: tuple[str, ...]) -> Refused:
        """It should not run, or is being started or stopped."""
        vm = plan.facts.vm.vm
        if plan.state == VmState.DOWN:
            return _nowhere(vm, plan.facts.host)
        return Conflict(
            "VM_STATE_FORBIDS",
            f"{vm['name']} is {plan.state}: which copy is its run is known once that has ended",
            next_step="wait for the end of its start or stop: `holdfast op list`",
            vm=vm["name"],
            state=plan.state,
        )


def _nowhere(vm: Row, host: Row) -> Conflict:
    name, where = vm["name"], host["name"]
    return Conflict(
        "VM_NOT_RUNNING",
        f"{name} is down and should run nowhere: there is no run that its copy on {where} could "
        "take over",
        next_step=f"`holdfast vm end-copy {name} --host {where} --last-copy` ends the copy, and "
        f"`holdfast vm start {name} --host {where}` starts the VM",
        vm=name,
        host=where,
    )

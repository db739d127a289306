"""Ending a copy of a VM that runs on a host where it should not."""

from collections.abc import Iterator

from domain.errors import Conflict, Refused
from domain.inventory import HostState
from domain.orders import EndCopyOrder
from domain.stray_copies import last_copy
from engine.actions.base import Done, Plan, Tx
from engine.actions.copies import CopyAction, CopyFacts, CopyOf
from engine.refs import host_ref, policy_of, run_ref

UNREAD = frozenset(
    {HostState.NON_RESPONSIVE, HostState.FENCING, HostState.DOWN, HostState.RECONCILING}
)
"""States of a host that cannot be read, or whose copies its own activation is settling."""


class EndCopy(CopyOf):
    """End the copy of a VM on a host where it should not run; also its last one, if one says so."""

    last_copy: bool = False


class EndCopyAction(CopyAction[EndCopy]):
    """`vm.end_copy`: refused for the copy that the books know, which `vm stop` ends."""

    params = EndCopy
    kind = "vm.end_copy"
    workflow = "EndCopy"
    registered = True
    acts = "copy.end"
    untouched = "nothing was ended"
    touched = "the copy on {host} may have been ended: ask for it again, what is gone is told"
    if_the_run = "`holdfast vm stop {vm}` ends it there"

    def outranks(self, params: EndCopy) -> frozenset[str]:
        """Who may end the last copy needs nobody who waits for the VM to come back."""
        return frozenset({"vm.recover"}) if params.last_copy else frozenset()

    def steps(self, facts: CopyFacts) -> tuple[str, ...]:
        """What will be done, in words."""
        return "read both hosts", f"end the copy on {facts.host['name']}", "undefine it"

    async def execute(self, tx: Tx, params: EndCopy, plan: Plan[CopyFacts]) -> Done:
        """Order its end."""
        facts, host = plan.facts.vm, plan.facts.host
        vm, run, own = facts.vm, facts.run, facts.host
        ref = None
        if run is not None and own is not None:
            nics = await tx.facts.nics_of(vm["id"])
            ref = run_ref(run, vm, own, facts.cluster["virt_type"], nics)
        order = EndCopyOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(facts.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            host=host_ref(host),
            run=ref,
            last_copy=params.last_copy,
        )
        return Done(order=order, data={"host": host["name"], "last_copy": params.last_copy})

    def unfit(self, params: EndCopy, facts: CopyFacts) -> Iterator[Refused]:
        """Its host has to be read, and the last copy is ended only if somebody says so."""
        vm, host = facts.vm.vm, facts.host
        if host["state"] in UNREAD:
            yield Conflict(
                "HOST_STATE_FORBIDS",
                f"{host['name']} is {host['state']}: what runs there cannot be read, or is being "
                "settled",
                next_step=f"`holdfast host activate {host['name']}` settles them",
                host=host["name"],
                state=host["state"],
            )
        if facts.vm.run is None and not params.last_copy:
            yield last_copy(vm["name"], host["name"], None)

    def too_early(self, plan: Plan[CopyFacts], allowed: tuple[str, ...]) -> Refused:
        """It is being started or stopped."""
        vm = plan.facts.vm.vm
        return Conflict(
            "VM_STATE_FORBIDS",
            f"{vm['name']} is {plan.state}: which of its copies are wanted is known once it is "
            f"{' or '.join(allowed)}",
            next_step="wait for the end of its start or stop: `holdfast op list`; "
            f"`holdfast vm stop {vm['name']}` ends what is being started",
            vm=vm["name"],
            state=plan.state,
        )

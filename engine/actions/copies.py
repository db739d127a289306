"""What a person asks for of a copy of a VM that runs where the books have none."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar
from uuid import UUID

from domain.errors import Conflict, Refused
from domain.inventory import HostState, VmState
from domain.locks import exclusive
from domain.permissions import Permission
from engine.actions.base import Action, Params, Plan, Problems, Tx
from engine.actions.vms import VmFacts, host_for, moving, silent, vm_facts, vm_target
from store import operations
from store.rows import Row


class CopyOf(Params):
    """A copy of a VM, named by the host on which it runs."""

    vm_id: UUID
    host_id: UUID


@dataclass(frozen=True)
class CopyFacts:
    """The VM as the books have it, and the host of the copy."""

    vm: VmFacts
    host: Row


P = TypeVar("P", bound=CopyOf)


class CopyAction(Action[P, CopyFacts]):
    """Refused for the copy that the books know, and while nobody can say which that is.

    acts        the step after which nothing can be taken back
    untouched   what a cancelled one has done before that step
    touched     what it may have done on the host of the copy from then on
    if_the_run  what to do with the copy that the books know
    """

    permission = Permission.VM_OPERATE
    registered = False
    acts: ClassVar[str]
    untouched: ClassVar[str]
    touched: ClassVar[str]
    if_the_run: ClassVar[str]

    @abstractmethod
    def steps(self, facts: CopyFacts) -> tuple[str, ...]:
        """What will be done, in words."""

    @abstractmethod
    def unfit(self, params: P, facts: CopyFacts) -> Iterator[Refused]:
        """What else speaks against it."""

    @abstractmethod
    def too_early(self, plan: Plan[CopyFacts], allowed: tuple[str, ...]) -> Refused:
        """The refusal while the VM is on its way somewhere."""

    async def plan(self, tx: Tx, params: P, problems: Problems) -> Plan[CopyFacts]:
        """Check that the VM should not run there, and that both hosts can be read."""
        vm = await vm_facts(tx, params.vm_id)
        next_step = "name a host of its cluster"
        facts = CopyFacts(vm, await host_for(tx, vm.vm, params.host_id, next_step=next_step))
        problems.extend(self._against(params, facts))
        return Plan(
            target=vm_target(vm.vm),
            facts=facts,
            state=await tx.facts.state_of_vm(vm.vm["id"]),
            locks=(exclusive("vm", vm.vm["id"]),),
            steps=self.steps(facts),
            protected=vm.vm["protected"],
        )

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Nothing is taken back: what was done to a copy stays done."""
        steps = await operations.steps(tx.connection, operation["id"])
        if all(step["name"] != self.acts for step in steps):
            return self.untouched
        return self.touched.format(host=operation["order"]["host"]["name"])

    def forbidden(self, params: P, plan: Plan[CopyFacts], allowed: tuple[str, ...]) -> Refused:
        """It is on its way somewhere, or nobody knows."""
        vm, own = plan.facts.vm.vm, plan.facts.vm.host
        if plan.state == VmState.UNKNOWN and own is not None:
            return silent(vm, own)
        if plan.state == VmState.MIGRATING:
            return moving(vm)
        return self.too_early(plan, allowed)

    def _against(self, params: P, facts: CopyFacts) -> Iterator[Refused]:
        vm, run, own = facts.vm.vm, facts.vm.run, facts.vm.host
        if run is not None and run["host_id"] == facts.host["id"]:
            yield Conflict(
                "COPY_IS_THE_RUN",
                f"{facts.host['name']} is where {vm['name']} should run, in generation "
                f"{run['generation']}",
                next_step=self.if_the_run.format(vm=vm["name"]),
                vm=vm["name"],
                host=facts.host["name"],
            )
        yield from self.unfit(params, facts)
        if own is not None and own["state"] == HostState.RECONCILING:
            yield silent(vm, own)

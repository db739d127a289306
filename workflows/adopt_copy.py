"""Make the copy of a VM that somebody moved by hand the VM's run.

Phases      reading both hosts (refused with the reason) → taking a generation → marking the copy →
            recording → forgetting on the host that it left → done.
Invariants  exactly one copy lives, on the host that was named; the host of the old run was read
            without one, in that run's boot, before the mark and again before the books change.
Races       the VM's run moves on or another operation takes the VM over: the next step is refused
            as superseded. A copy with another mark than the one that was read is not marked.
Cancel      leaves all as it is until the copy is being marked; then it is too late.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.adoptions import Adoption, Adoptions
from activities.stray_copies import CopyStep
from domain.operations import Outcome
from domain.orders import AdoptCopyOrder
from workflows import options
from workflows.operation import go_on, problem_of, run_operation, to_its_end


@workflow.defn
class AdoptCopy:
    """The durable operation `vm.adopt_copy`."""

    @workflow.init
    def __init__(self, order: AdoptCopyOrder) -> None:
        self._order = order

    @workflow.run
    async def run(self, order: AdoptCopyOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._adopt, self._left)

    async def _adopt(self) -> str:
        order, step = self._order, self._step()
        where = f"{order.vm_name} on {order.host.name}"
        found = await workflow.execute_activity_method(
            Adoptions.read,
            step,
            **options.guest(order.policy, f"read {where}, and on {order.run.host_name}"),
        )
        go_on()
        generation = await workflow.execute_activity_method(
            Adoptions.number, step, **options.decide("take the next generation")
        )
        go_on()
        adoption = Adoption(step=step, found=found, generation=generation)
        return await to_its_end(self._adopted(adoption, where))

    async def _adopted(self, adoption: Adoption, where: str) -> str:
        policy = self._order.policy
        await workflow.execute_activity_method(
            Adoptions.mark, adoption, **options.guest(policy, f"mark the copy of {where}")
        )
        await workflow.execute_activity_method(
            Adoptions.record, adoption, **options.give_up(policy, "let the books follow it")
        )
        done = f"the copy of {where} is its run now, in generation {adoption.generation}"
        return "; ".join(filter(None, (done, await self._forgotten(adoption))))

    async def _forgotten(self, adoption: Adoption) -> str:
        """The VM is adopted, whether the host that it left can be told of it or not."""
        left = self._order.run.host_name
        try:
            await workflow.execute_activity_method(
                Adoptions.forget,
                adoption,
                **options.give_up(self._order.policy, f"let {left} forget it"),
            )
        except ActivityError as error:
            return f"{left} may still know it: {problem_of(error).detail}"
        return ""

    def _step(self) -> CopyStep:
        order = self._order
        return CopyStep(
            operation_id=order.operation_id,
            attempt=order.attempt,
            vm_id=order.vm_id,
            vm_name=order.vm_name,
            host=order.host,
            run=order.run,
            deadline_s=order.policy.define_deadline_s,
        )

    async def _left(self) -> str:
        return f"the copy of {self._order.vm_name} on {self._order.host.name} was only read"

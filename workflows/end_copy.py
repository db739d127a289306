"""End a copy of a VM on a host where it should not run, by a person's word.

Phases      reading both hosts (refused with the reason) → ending → forgetting → recording → done.
Invariants  only the copy with the mark that was read is ended; the VM's own copy was read as
            running just before, unless the person says that the last one may be ended.
Races       the VM's run moves on or another operation takes the VM over: the next step is refused
            as superseded. A copy that was started there meanwhile has a newer mark, and stays.
Cancel      leaves the copy as it is until it is being ended; then it is too late.
"""

from temporalio import workflow

from activities.stray_copies import CopyStep, EndCopyStep, StrayCopies
from domain.operations import Outcome
from domain.orders import EndCopyOrder
from workflows import options
from workflows.operation import go_on, run_operation, to_its_end


@workflow.defn
class EndCopy:
    """The durable operation `vm.end_copy`."""

    @workflow.init
    def __init__(self, order: EndCopyOrder) -> None:
        self._order = order

    @workflow.run
    async def run(self, order: EndCopyOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._end, self._left)

    async def _end(self) -> str:
        order, policy = self._order, self._order.policy
        where = f"{order.vm_name} on {order.host.name}"
        found = await workflow.execute_activity_method(
            StrayCopies.read,
            self._step(),
            **options.guest(policy, f"read {where}, and its own host"),
        )
        go_on()
        return await to_its_end(self._ended(EndCopyStep(step=self._step(), found=found), where))

    async def _ended(self, step: EndCopyStep, where: str) -> str:
        policy = self._order.policy
        how = await workflow.execute_activity_method(
            StrayCopies.end, step, **options.give_up(policy, f"end the copy of {where}")
        )
        await workflow.execute_activity_method(
            StrayCopies.forget, step, **options.give_up(policy, f"undefine the copy of {where}")
        )
        down = await workflow.execute_activity_method(
            StrayCopies.record, step, **options.give_up(policy, "record that it is gone")
        )
        return f"the copy {how}; {self._rest(down=down)}"

    def _rest(self, *, down: bool) -> str:
        name, run = self._order.vm_name, self._order.run
        if down:
            return f"{name} has no other and is down"
        return f"{name} runs on {'another host' if run is None else run.host_name}"

    def _step(self) -> CopyStep:
        order = self._order
        return CopyStep(
            operation_id=order.operation_id,
            attempt=order.attempt,
            vm_id=order.vm_id,
            vm_name=order.vm_name,
            host=order.host,
            run=order.run,
            last_copy=order.last_copy,
            deadline_s=order.policy.define_deadline_s,
        )

    async def _left(self) -> str:
        return f"the copy of {self._order.vm_name} on {self._order.host.name} was only read"

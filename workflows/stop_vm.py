"""Stop one VM: ask the guest to end, wait for its grace, then end it hard.

Phases      asking → waiting → ending → done; `force` goes straight to ending.
Invariants  the run is closed, and its memory freed, only after the host was read back without it.
Pause       honoured before the guest is asked; from then on its end takes its course.
Cancel      cancelling while the guest is still shutting down leaves it to end by itself; the
            summary says so, and the run stays `stopping` until a later stop closes it. Once it is
            being ended hard, it is too late.
"""

from temporalio import workflow

from activities.guests import GuestOrder, Guests, StopOrder
from domain.operations import Outcome
from domain.orders import StopVmOrder
from workflows import options
from workflows.operation import go_on, run_operation, to_its_end
from workflows.pausing import Pausing


@workflow.defn
class StopVm:
    """The durable operation `vm.stop`."""

    @workflow.init
    def __init__(self, order: StopVmOrder) -> None:
        self._order = order
        self._asked = False
        self._pausing = Pausing(order)

    @workflow.run
    async def run(self, order: StopVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._stop, self._left)

    async def _stop(self) -> str:
        order, policy = self._order, self._order.policy
        step = GuestOrder(run=order.run, deadline_s=policy.define_deadline_s)
        ended_itself = False
        await self._pausing.checkpoint()
        if not order.force:
            self._asked = True
            await workflow.execute_activity_method(
                Guests.shutdown,
                step,
                **options.guest(policy, f"ask {order.vm_name} to end"),
            )
            go_on()
            ended_itself = await workflow.execute_activity_method(
                Guests.await_off,
                StopOrder(
                    run=order.run,
                    deadline_s=policy.define_deadline_s,
                    grace_s=policy.stop_grace_s,
                    read_every_s=policy.stop_read_s,
                ),
                **options.await_off(
                    policy, f"wait up to {policy.stop_grace_s:.0f} s for {order.vm_name}"
                ),
            )
        go_on()
        gone = await to_its_end(
            workflow.execute_activity_method(
                Guests.end,
                step,
                **options.give_up(policy, f"end {order.vm_name}"),
            )
        )
        return f"{gone}, {'by itself' if ended_itself else 'ended hard'}"

    async def _left(self) -> str:
        name = self._order.vm_name
        return f"{name} was asked to end and may still do so" if self._asked else f"{name} runs on"

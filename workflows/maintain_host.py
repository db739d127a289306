"""Take one host out of service: move its VMs elsewhere, a few at a time, until it is empty.

Phases      draining, look by look → in maintenance. A look is one transaction that orders moves, as
            child operations; the next comes with the signal of a move that ended, or after a while.
Invariants  new VMs keep away from the first moment on; the host is in maintenance only when no run
            names it, in the very statement that says so.
Waits       while no VM gets on: with each VM that cannot move and its reason. Capacity that comes
            back, or a VM that is stopped, lets it go on by itself.
Pause       orders no further move; what is under way goes on.
Cancel      moves under way are asked to end, and the host serves on.
Races       the host fails meanwhile: its recovery takes it over, and this ends as superseded.
"""

from temporalio import workflow

from activities.maintaining import DrainStep
from domain.operations import Outcome
from domain.orders import MaintainHostOrder
from workflows.draining import Draining
from workflows.operation import run_operation


@workflow.defn
class MaintainHost:
    """The durable operation `host.maintain`."""

    @workflow.init
    def __init__(self, order: MaintainHostOrder) -> None:
        self._order = order
        step = DrainStep(
            operation_id=order.operation_id,
            host=order.host,
            at_once=order.policy.migrations_per_host,
            retry_s=order.policy.hold_retry_max_s,
        )
        self._draining = Draining(order, step)

    @workflow.run
    async def run(self, order: MaintainHostOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._drain, self._draining.stay)

    @workflow.signal
    def look_again(self) -> None:
        """A move has ended, or there is room: do not wait for the next look."""
        self._draining.look_again()

    async def _drain(self) -> str:
        drained = await self._draining.until_empty()
        return f"{self._order.host.name} is in maintenance; {drained.moved} VMs were moved"

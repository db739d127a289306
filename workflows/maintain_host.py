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

from activities.maintaining import Drained, DrainStep, Maintenance
from domain.operations import Outcome
from domain.orders import MaintainHostOrder
from workflows import options
from workflows.operation import run_operation, show_running, show_waiting, to_its_end, wait_up_to
from workflows.pausing import Pausing


@workflow.defn
class MaintainHost:
    """The durable operation `host.maintain`."""

    @workflow.init
    def __init__(self, order: MaintainHostOrder) -> None:
        self._order = order
        self._looks_wanted = 0
        self._pausing = Pausing(order)

    @workflow.run
    async def run(self, order: MaintainHostOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._drain, self._stay)

    @workflow.signal
    def look_again(self) -> None:
        """A move has ended, or there is room: do not wait for the next look."""
        self._looks_wanted += 1

    async def _drain(self) -> str:
        waited = False
        while True:
            await self._pausing.checkpoint()
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(self._order)
            looks = self._looks_wanted
            drained = await to_its_end(self._advance())
            if drained.empty:
                return f"{self._order.host.name} is in maintenance; {drained.moved} VMs were moved"
            stuck = bool(drained.stuck) and not drained.under_way
            if stuck:
                await show_waiting(self._order, "VMS_CANNOT_MOVE", "; ".join(drained.stuck))
            elif waited:
                await show_running(self._order)
            waited = stuck
            workflow.set_current_details(_sentence(drained))
            await self._wait(looks)

    async def _wait(self, looks: int) -> None:
        await wait_up_to(
            self._order.policy.capacity_retry_s,
            lambda: self._looks_wanted > looks or self._pausing.wanted,
            "look at its VMs",
        )

    async def _advance(self) -> Drained:
        return await workflow.execute_local_activity_method(
            Maintenance.advance, self._step(), **options.RECORD
        )

    async def _stay(self) -> str:
        return await workflow.execute_local_activity_method(
            Maintenance.stay, self._step(), **options.RECORD
        )

    def _step(self) -> DrainStep:
        order = self._order
        return DrainStep(
            operation_id=order.operation_id,
            host=order.host,
            at_once=order.policy.migrations_per_host,
            retry_s=order.policy.hold_retry_max_s,
        )


def _sentence(drained: Drained) -> str:
    return f"{drained.moved} moved, {drained.under_way} under way, {drained.left} left"

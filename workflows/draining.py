"""Emptying a host, look by look: shared by maintenance and by planned shutdowns."""

from collections.abc import Awaitable, Callable

from temporalio import workflow

from activities.maintaining import Drained, DrainStep, Maintenance
from domain.operations import Order
from workflows import options
from workflows.operation import show_running, show_waiting, to_its_end, wait_up_to
from workflows.pausing import Pausing

STUCK = "VMS_CANNOT_MOVE"


class Draining:
    """The looks of one operation at the VMs of its host."""

    def __init__(self, order: Order, step: DrainStep) -> None:
        self._order = order
        self._step = step
        self._looks_wanted = 0
        self.pausing = Pausing(order)

    def look_again(self) -> None:
        """A move has ended, or there is room: do not wait for the next look."""
        self._looks_wanted += 1

    @property
    def looks_wanted(self) -> int:
        """How often a look was asked for."""
        return self._looks_wanted

    async def until_empty(self, beside: Callable[[], Awaitable[object]] | None = None) -> Drained:
        """Look until the host is out of service; the last look. `beside` is done at each look."""
        waited = False
        while True:
            await self.pausing.checkpoint()
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(self._order)
            looks = self._looks_wanted
            drained = await to_its_end(self._advance())
            if beside is not None:
                await beside()
            if drained.empty:
                return drained
            stuck = bool(drained.stuck) and not drained.under_way
            if stuck:
                await show_waiting(self._order, STUCK, "; ".join(drained.stuck))
            elif waited:
                await show_running(self._order)
            waited = stuck
            workflow.set_current_details(_sentence(drained))
            await self.wait(looks)

    async def wait(self, looks: int) -> None:
        """Wait for a reason to look, or for the next look."""
        await wait_up_to(
            self._order.policy.capacity_retry_s,
            lambda: self._looks_wanted > looks or self.pausing.wanted,
            "look at its VMs",
        )

    async def stay(self) -> str:
        """Give it up; a sentence about what is left how."""
        return await workflow.execute_local_activity_method(
            Maintenance.stay, self._step, **options.RECORD
        )

    async def _advance(self) -> Drained:
        return await workflow.execute_local_activity_method(
            Maintenance.advance, self._step, **options.RECORD
        )


def _sentence(drained: Drained) -> str:
    return f"{drained.moved} gone, {drained.under_way} under way, {drained.left} left"

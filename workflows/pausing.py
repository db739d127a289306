"""Pause and resume: an operation stands still at a checkpoint until a person lets it go on.

A workflow that can pause makes one `Pausing` when it is created and asks it wherever standing
still leaves nothing half done. Any other workflow has none, and the signals pass it by.

Races   A pause that comes after the last checkpoint is too late, and the operation goes on. One
        that is taken back before its checkpoint is never seen. Cancelling ends a pause.
Replay  A checkpoint gives no command unless a pause was asked for. Continuing as new forgets a
        pause, so a workflow does not do that while one is wanted.
"""

from temporalio import workflow

from activities.operations import Operations, PauseOrder
from domain.operations import Order
from workflows import options
from workflows.operation import go_on, to_its_end


class Pausing:
    """What one operation was last told: stand still, or go on."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.wanted = False
        workflow.set_signal_handler("pause", self._pause)
        workflow.set_signal_handler("resume", self._resume)

    async def checkpoint(self) -> None:
        """Return when the next step may begin; CancelledError once cancelling was asked for."""
        go_on()
        while self.wanted:
            await to_its_end(self._show(paused=True))
            go_on()
            await workflow.wait_condition(lambda: not self.wanted)
            await to_its_end(self._show(paused=False))
            go_on()

    async def _show(self, *, paused: bool) -> None:
        workflow.set_current_details("paused" if paused else "running")
        order = PauseOrder(operation_id=self._order.operation_id, paused=paused)
        await workflow.execute_local_activity_method(Operations.pause, order, **options.RECORD)

    def _pause(self) -> None:
        self.wanted = True

    def _resume(self) -> None:
        self.wanted = False

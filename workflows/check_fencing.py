"""Test the fence devices of a host, before one of them is needed.

Phases      asking → done. It only reads, so it may be done at any time, also while the host is
            recovered, and cancelling it leaves nothing.
"""

from temporalio import workflow

from activities.fence_checks import CheckStep, FenceChecks
from domain.operations import Outcome
from domain.orders import CheckFencingOrder
from workflows import options
from workflows.operation import go_on, run_operation


@workflow.defn
class CheckFencing:
    """The durable operation `host.check_fencing`."""

    @workflow.init
    def __init__(self, order: CheckFencingOrder) -> None:
        self._order = order

    @workflow.run
    async def run(self, order: CheckFencingOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._check, self._left)

    async def _check(self) -> str:
        order = self._order
        step = CheckStep(operation_id=order.operation_id, host=order.host, policy=order.policy)
        said = await workflow.execute_activity_method(
            FenceChecks.check_devices,
            step,
            **options.look(order.policy, f"test the fence devices of {order.host.name}"),
        )
        go_on()
        return said

    async def _left(self) -> str:
        return "nothing was changed"

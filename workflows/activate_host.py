"""Bring one host into service: power on, wait for it, reconcile, admit with a new epoch.

Phases      powering on → waiting → reconciling → admitting → done.
Invariants  the host gets no new work before its old copies are settled; the mark of this boot is
            set before the epoch it names is raised, so a reboot in between is noticed.
Giving up   the host is left `non_operational` with the reason; nothing on it was started.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.hosts import Hosts, HostStep
from domain.operations import Outcome
from domain.orders import ActivateHostOrder
from workflows import options
from workflows.admitting import leave_out, settle_and_admit
from workflows.operation import go_on, problem_of, run_operation, to_its_end


@workflow.defn
class ActivateHost:
    """The durable operation `host.activate`."""

    @workflow.init
    def __init__(self, order: ActivateHostOrder) -> None:
        self._order = order

    @workflow.run
    async def run(self, order: ActivateHostOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._activate, self._left)

    async def _activate(self) -> str:
        try:
            return await self._steps()
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await to_its_end(leave_out(self._order.host, problem_of(error).detail))
            raise

    async def _steps(self) -> str:
        order, name = self._order, self._order.host.name
        step = HostStep(operation_id=order.operation_id, host=order.host, policy=order.policy)
        if order.power_on:
            await workflow.execute_activity_method(
                Hosts.power_on,
                step,
                **options.host(order.policy, f"power {name} on"),
            )
        go_on()
        await workflow.execute_activity_method(
            Hosts.await_answer,
            step,
            **options.host(order.policy, f"wait for {name}"),
        )
        go_on()
        return await settle_and_admit(step)

    async def _left(self) -> str:
        await leave_out(self._order.host, "activation was cancelled")
        return f"{self._order.host.name} is out of service"

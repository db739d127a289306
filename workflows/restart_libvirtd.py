"""Restart libvirtd on a host over SSH: the soft step, before anybody thinks of its power.

Phases      claimed → restarted → read back → recorded. The claim asks once more for all that makes
            it safe; libvirt has to answer in the same boot, with every guest alive that was.
Races       A host that dies, or has rebooted, is taken over by its recovery or its activation; what
            this may still do on it is a restart of libvirtd, which moves nothing.
Failure     The host stays as it is. It is no evidence of a death, and nothing harder follows.
Cancel      Honoured between steps. What was asked of the host is not taken back.
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from activities.soft_steps import (
    ANSWERED,
    CANCELLED,
    FAILED,
    GUESTS_MISSING,
    MISSING,
    EndStep,
    RestartStep,
    SoftStep,
    SoftSteps,
)
from domain.operations import Outcome
from domain.orders import RestartLibvirtdOrder
from workflows import options
from workflows.operation import go_on, problem_of, run_operation, to_its_end


@workflow.defn
class RestartLibvirtd:
    """The durable operation `host.restart_libvirtd`."""

    @workflow.init
    def __init__(self, order: RestartLibvirtdOrder) -> None:
        self._order = order
        self._claimed = False

    @workflow.run
    async def run(self, order: RestartLibvirtdOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._restart, self._left)

    async def _restart(self) -> str:
        step = self._step()
        claimed = await workflow.execute_activity_method(
            SoftSteps.claim, step, **options.decide(f"ask whether {step.host.name} may be touched")
        )
        self._claimed = True
        try:
            go_on()
            said = await self._restarted(RestartStep(step=step, claimed=claimed))
        except (FailureError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                problem = problem_of(error)
                outcome = MISSING if problem.code == GUESTS_MISSING else FAILED
                await to_its_end(self._end(outcome, f"{problem.code}: {problem.detail}"))
            raise
        await to_its_end(self._end(ANSWERED, said))
        return said

    async def _restarted(self, order: RestartStep) -> str:
        policy, name = order.step.policy, order.step.host.name
        await workflow.execute_activity_method(
            SoftSteps.restart, order, **options.soft(policy, f"restart libvirtd on {name}")
        )
        go_on()
        return await workflow.execute_activity_method(
            SoftSteps.read_back, order, **options.soft(policy, f"read {name} back")
        )

    async def _end(self, outcome: str, detail: str) -> None:
        end = EndStep(step=self._step(), outcome=outcome, detail=detail)
        await workflow.execute_activity_method(
            SoftSteps.end, end, **options.decide("record how it ended")
        )

    async def _left(self) -> str:
        if not self._claimed:
            return "nothing was done yet"
        await self._end(CANCELLED, "cancelled; libvirtd may have been restarted")
        return "libvirtd may have been restarted; guests run on either way"

    def _step(self) -> SoftStep:
        order = self._order
        return SoftStep(
            operation_id=order.operation_id,
            attempt=order.attempt,
            host=order.host,
            policy=order.policy,
            hung=order.hung,
        )

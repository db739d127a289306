"""A next release of the engine, as upgrades in a simulation bring it: more steps, behind patches.

Runs that began on today's code go on in their old way where they have passed these places, and
take the new steps where they have not; new runs take them all. A step of each sort is added: an
activity, a local activity and a timer. None of them changes what an operation does.
"""

from temporalio import workflow
from temporalio.workflow import patched

from activities.fencing import FenceStep, Fencing
from domain.operations import Outcome
from domain.orders import FenceHostOrder, RecoverHostOrder, RestartPlan, RunRef, StartVmOrder
from simulator.engine import Release
from worker.parts import WORKFLOWS
from workflows import options
from workflows.fence_host import FenceHost
from workflows.operation import go_on, show_running
from workflows.recover_host import RecoverHost
from workflows.start_vm import StartVm

PAUSE_S = 0.2


@workflow.defn(name="FenceHost")
class NextFenceHost(FenceHost):
    """Reads the power once before it cuts it."""

    @workflow.run
    async def run(self, order: FenceHostOrder) -> Outcome:
        """As its base."""
        return await super().run(order)

    async def _fence(self) -> str:
        order = self._order
        if patched("read-before-cut"):
            step = FenceStep(
                operation_id=order.operation_id,
                host=order.host,
                incident_id=order.incident_id,
                policy=order.policy,
            )
            await workflow.execute_activity_method(
                Fencing.read_power,
                step,
                **options.look(order.policy, f"read the power of {order.host.name} before"),
            )
            go_on()
        return await super()._fence()


@workflow.defn(name="RecoverHost")
class NextRecoverHost(RecoverHost):
    """Shows that it goes on before it starts VMs elsewhere."""

    @workflow.run
    async def run(self, order: RecoverHostOrder) -> Outcome:
        """As its base."""
        return await super().run(order)

    async def _finish(self, plan: RestartPlan) -> str:
        if patched("say-that-it-goes-on"):
            await show_running(self._order)
        return await super()._finish(plan)


@workflow.defn(name="StartVm")
class NextStartVm(StartVm):
    """Waits a moment before it defines a guest."""

    @workflow.run
    async def run(self, order: StartVmOrder) -> Outcome:
        """As its base."""
        return await super().run(order)

    async def _start_on(self, run: RunRef) -> str:
        if patched("wait-before-define"):
            await workflow.sleep(PAUSE_S, summary="wait before the guest is defined")
        return await super()._start_on(run)


CHANGED = {FenceHost: NextFenceHost, RecoverHost: NextRecoverHost, StartVm: NextStartVm}
NEXT = Release(1, tuple(CHANGED.get(each, each) for each in WORKFLOWS))

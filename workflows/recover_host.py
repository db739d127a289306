"""Recover from one host's failure: judge, prove, claim its VMs, start them elsewhere, report.

Phases      decide (may hold, with reasons) → prove (child `host.fence`) → place (one transaction:
            runs lost under the certificate, places reserved, host freed) → start → ready → report.
Invariants  no VM is placed before the certificate; a VM's dependants start after it is ready.
Readiness   a VM with a rule is waited for, up to the rule's limit; see `domain.readiness`.
Races       the host answers again before the proof: the incident ends `returned`, nothing moves.
            One open incident a host and epoch, by a unique index; later reports only say "look".
Cancel      honoured until the dead host's VMs are claimed: the incident is closed as cancelled and
            nothing was moved. From then on the restarts run to their end.
"""

import asyncio
import contextlib
from collections.abc import Callable
from uuid import UUID

from temporalio import workflow
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ParentClosePolicy

from activities.fencing import FenceStep, Fencing
from activities.recovery import (
    AssessOrder,
    ClaimVictimsOrder,
    FenceChildOrder,
    Recovery,
    ReportOrder,
)
from domain.context import PriorityClass
from domain.operations import OperationState, Outcome, Problem, workflow_id
from domain.orders import (
    Evidence,
    FenceHostOrder,
    RecoverHostOrder,
    Restart,
    RestartPlan,
    StartVmOrder,
)
from domain.recovery import Decision, Move
from workflows import options
from workflows.fence_host import FenceHost
from workflows.operation import (
    cancelled,
    close,
    failed,
    go_on,
    go_on_anew,
    go_on_to_wait,
    problem_of,
    run_operation,
    show_running,
    show_waiting,
    to_its_end,
)
from workflows.start_vm import StartVm
from workflows.starting import ANYWHERE, Awaited, Readied, Turns

FOLLOW_MAX_S = 300
"""Longest wait between looks at what an earlier try began; doubled up to it. Higher: the report
comes later, and VMs that depend on it start later. Lower: a restart that waits for days fills this
workflow's history."""

LOOK_WHILE_JUDGING = "look-while-judging"
"""Patch: before it, a signal that came while nothing was waited for woke nobody."""

LEFT_TO_THE_SWEEPER = "left-to-the-sweeper"
"""Patch: before it, a start that somebody ended was closed at once, and kept the place that it had
reserved: nothing could start that VM any more."""


@workflow.defn
class RecoverHost:
    """The durable operation `host.recover`."""

    @workflow.init
    def __init__(self, order: RecoverHostOrder) -> None:
        self._order = order
        self._looks_wanted = 0
        self._looks_judged = 0  # how many of them the last judgement has answered
        self._holds = 0
        self._doubted = order.doubted
        policy = order.policy
        self._turns = Turns(policy.starts_per_host, policy.start_deadline_s)

    @workflow.run
    async def run(self, order: RecoverHostOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._recover, self._left)

    @workflow.signal
    def look_again(self) -> None:
        """Something may have changed: judge anew without waiting for the next look."""
        self._looks_wanted += 1

    async def _recover(self) -> str:
        while True:
            decision = await self._decide()
            if decision.move is Move.RETURN:
                return await self._report((), returned=True)
            claimed = await self._prove_and_claim(decision)
            if isinstance(claimed, RestartPlan):
                return await to_its_end(self._finish(claimed))
            # Not proven, or not any more: say why and judge anew; something may be back. A reading
            # that life has contradicted once is never again believed before the monitors spoke.
            self._doubted = self._doubted or claimed.code == "SIGN_OF_LIFE"
            await self._hold(claimed.code, claimed.detail)

    async def _prove_and_claim(self, decision: Decision) -> RestartPlan | Problem:
        fence = await self._prove(decision)
        if fence.certificate_id is None:
            return fence.problem or Problem(code="FENCE_CANCELLED", detail="no certificate")
        go_on()
        try:
            return await to_its_end(self._claim_victims(fence.certificate_id))
        except ActivityError as error:
            return problem_of(error)

    async def _finish(self, plan: RestartPlan) -> str:
        return await self._report(await self._restart_all(plan), returned=False)

    async def _decide(self) -> Decision:
        waited = False
        while True:
            go_on()
            self._looks_judged = self._looks_wanted
            decision = await self._assess()
            if decision.move is not Move.HOLD:
                if waited:
                    await show_running(self._order)
                workflow.set_current_details(f"{decision.move}: {decision.why}")
                return decision
            waited = True
            await self._hold(decision.held[0].reason, decision.why)

    async def _assess(self) -> Decision:
        order = self._order
        step = FenceStep(
            operation_id=order.operation_id,
            host=order.host,
            incident_id=order.incident_id,
            policy=order.policy,
        )
        readings: tuple[Evidence, ...] = await workflow.execute_activity_method(
            Fencing.read_power,
            step,
            **options.look(order.policy, f"ask the power devices of {order.host.name}"),
        )
        go_on()
        return await workflow.execute_activity_method(
            Recovery.assess,
            AssessOrder(
                operation_id=order.operation_id,
                incident_id=order.incident_id,
                host=order.host,
                readings=readings,
                policy=order.policy,
                doubted=self._doubted,
            ),
            **options.decide(f"judge {order.host.name}"),
        )

    async def _hold(self, code: str, detail: str) -> None:
        # A look that is wanted while it judges, or while the fence is tried, is not waited away.
        early = workflow.patched(LOOK_WHILE_JUDGING)
        looks = self._looks_judged if early else self._looks_wanted
        go_on_to_wait()
        await show_waiting(self._order, code, detail)
        if workflow.info().is_continue_as_new_suggested():
            go_on_anew(self._order.model_copy(update={"doubted": self._doubted}))
        policy = self._order.policy
        doublings = min(self._holds, 10)
        wait_s = min(policy.hold_retry_s * 2**doublings, policy.hold_retry_max_s)
        self._holds += 1
        try:
            await workflow.wait_condition(
                lambda: self._looks_wanted > looks,
                timeout=options.seconds(wait_s),
                timeout_summary="judge anew",
            )
        except TimeoutError:
            return

    async def _prove(self, decision: Decision) -> Outcome:
        order = self._order
        child = FenceChildOrder(
            operation_id=order.operation_id, incident_id=order.incident_id, host=order.host
        )
        go_on()
        # From here on the child has a row, which only the child itself can close.
        operation_id = await to_its_end(
            workflow.execute_activity_method(
                Recovery.open_fence,
                child,
                **options.decide("open the fence"),
            )
        )
        fence = FenceHostOrder(
            operation_id=operation_id,
            context=order.context.model_copy(update={"parent_id": order.operation_id}),
            policy=order.policy,
            host=order.host,
            incident_id=order.incident_id,
            cut=decision.move is Move.FENCE,
            confirmation=decision.confirmation,
        )
        try:
            go_on()
            return await self._fence(fence)
        except WorkflowAlreadyStartedError:
            return await self._follow_fence(operation_id)
        except (FailureError, asyncio.CancelledError) as error:
            # It never began, or somebody ended its workflow: nobody else will close its row.
            outcome = cancelled(fence, problem_of(error))
            await to_its_end(close(outcome))
            go_on()
            return outcome

    async def _follow_fence(self, operation_id: UUID) -> Outcome:
        """Wait for the fence that an earlier try began; cancelled with this one, as a child is."""
        what = f"the fence of {self._order.host.name}"
        try:
            return await self._follow(operation_id, what, look=go_on_to_wait)
        except (FailureError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                await to_its_end(self._cancel_fence(operation_id, what))
            raise

    async def _cancel_fence(self, operation_id: UUID, what: str) -> None:
        fence = workflow.get_external_workflow_handle(workflow_id(operation_id, 1))
        with contextlib.suppress(FailureError):  # it has ended meanwhile: its row tells
            await fence.cancel()
        await self._follow(operation_id, what)

    async def _fence(self, fence: FenceHostOrder) -> Outcome:
        return await workflow.execute_child_workflow(
            FenceHost.run,
            fence,
            id=workflow_id(fence.operation_id, 1),
            task_queue=options.OPERATIONS,
            task_timeout=options.TASK,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=ParentClosePolicy.ABANDON,
            static_summary=f"fence {fence.host.name}",
        )

    async def _claim_victims(self, certificate_id: UUID) -> RestartPlan:
        order = self._order
        return await workflow.execute_activity_method(
            Recovery.claim_victims,
            ClaimVictimsOrder(
                operation_id=order.operation_id,
                incident_id=order.incident_id,
                host=order.host,
                certificate_id=certificate_id,
            ),
            **options.decide(f"claim the VMs of {order.host.name}"),
        )

    async def _restart_all(self, plan: RestartPlan) -> tuple[Outcome, ...]:
        ready: dict[UUID, asyncio.Event] = {r.vm_id: asyncio.Event() for r in plan.restarts}
        awaited, readied = Awaited(self._order, plan), Readied(self._order)

        async def restart(item: Restart) -> Outcome:
            await awaited.released(item)
            for other in item.depends_on:
                await ready[other].wait()
            outcome = await self._restart_in_turn(item)
            if outcome.state is OperationState.SUCCEEDED and item.ready is not None:
                await readied.until(item, item.ready)
            # A dependant waits for an attempt, not for a success: its own start may still help.
            ready[item.vm_id].set()
            return outcome

        restarts = asyncio.gather(*(restart(item) for item in plan.restarts))
        _, outcomes = await asyncio.gather(awaited.watch(), restarts)
        return tuple(outcomes)

    async def _restart_in_turn(self, item: Restart) -> Outcome:
        if item.run is None and not item.awaits:  # nobody knows where it will have room
            return await self._restart(item)
        host_id = ANYWHERE if item.run is None else item.run.host_id
        await self._turns.take(host_id, item.vm_id, item.vm_name)
        try:
            return await self._restart(item)
        finally:
            self._turns.give_back(host_id)

    async def _restart(self, item: Restart) -> Outcome:
        start = self._start_order(item)
        try:
            outcome = await self._start_elsewhere(start)
            if outcome.problem is None or outcome.problem.code != "SUPERSEDED":
                return outcome
        except WorkflowAlreadyStartedError:
            pass
        except ChildWorkflowError as error:
            if not workflow.patched(LEFT_TO_THE_SWEEPER):
                outcome = failed(start, problem_of(error))
                await close(outcome)
                return outcome
            # Somebody ended its workflow: the others go on, and whoever finds that closes it once
            # no step of it can be at work, and gives back the place that it has reserved.
        # Another run owns it, of an earlier try or of its own next one: what its row says counts.
        return await self._follow(item.operation_id, item.vm_name)

    async def _follow(
        self, operation_id: UUID, what: str, look: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Wait for a part of this recovery that an earlier try of it began; `look` may end that."""
        wait_s = self._order.policy.hold_retry_s
        while True:
            outcome: Outcome | None = await workflow.execute_activity_method(
                Recovery.follow, operation_id, **options.decide(f"look how {what} does")
            )
            if outcome is not None:
                return outcome
            look()
            await workflow.sleep(options.seconds(wait_s), summary=f"wait for {what}")
            wait_s = min(2 * wait_s, FOLLOW_MAX_S)

    def _start_order(self, item: Restart) -> StartVmOrder:
        order = self._order
        context = order.context.model_copy(
            update={"parent_id": order.operation_id, "priority": PriorityClass.PROTECTED}
        )
        return StartVmOrder(
            operation_id=item.operation_id,
            context=context,
            policy=order.policy,
            vm_id=item.vm_id,
            vm_name=item.vm_name,
            run=item.run,
            licence_id=item.licence_id,
            limits=item.limits,
        )

    async def _start_elsewhere(self, start: StartVmOrder) -> Outcome:
        return await workflow.execute_child_workflow(
            StartVm.run,
            start,
            id=workflow_id(start.operation_id, 1),
            task_queue=options.OPERATIONS,
            task_timeout=options.TASK,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=ParentClosePolicy.ABANDON,
            priority=Priority(priority_key=int(PriorityClass.PROTECTED)),
            static_summary=f"start {start.vm_name} elsewhere",
        )

    async def _left(self) -> str:
        order = self._order
        return await workflow.execute_activity_method(
            Recovery.report,
            ReportOrder(
                incident_id=order.incident_id,
                host=order.host,
                returned=False,
                outcomes=(),
                cancelled=True,
            ),
            **options.decide("close the incident"),
        )

    async def _report(self, outcomes: tuple[Outcome, ...], *, returned: bool) -> str:
        order = self._order
        summary = await workflow.execute_activity_method(
            Recovery.report,
            ReportOrder(
                incident_id=order.incident_id,
                host=order.host,
                returned=returned,
                outcomes=outcomes,
            ),
            **options.decide("report the incident"),
        )
        bad = [o for o in outcomes if o.state is not OperationState.SUCCEEDED]
        if bad:
            raise ApplicationError(
                summary,
                Problem(
                    code="RESTARTS_FAILED",
                    detail=summary,
                    next_step="look at the child operations that failed, then start those VMs",
                ).model_dump(mode="json"),
                type="RESTARTS_FAILED",
                non_retryable=True,
            )
        return summary

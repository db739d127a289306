"""See to one VM whose guest ended or was paused by itself: look, let it go on or start it again.

Phases      examining (may hold, with a reason) → settling → done; a VM that was restarted too often
            stays down until its limits allow the next try, which is shown.
            A guest that a disk error has paused is let go on, again and again, or ended.
            One that hangs is asked afresh, and ended only while its agent stays silent.
Invariants  the run is closed only after its host was read without the guest, in the run's own boot.
            The start that follows is an operation of its own, ordered as the run is closed.
Races       its host fails or reboots meanwhile: the run is that recovery's or activation's, and the
            next step here is refused as superseded.
Cancel      leaves the VM as it is by then: its run open before it was settled, down afterwards.
"""

from datetime import datetime

from temporalio import workflow

from activities.vm_recovery import ExamineOrder, Settled, SettleOrder, VmRecovery
from domain.ended_guests import NextMove, Verdict
from domain.next_looks import ELSEWHERE_LOOK_S
from domain.operations import Outcome
from domain.orders import RecoverVmOrder
from domain.paused_guests import RESUME_AGAIN_MAX_S, RESUME_AGAIN_S
from workflows import options
from workflows.operation import (
    go_on,
    go_on_anew,
    go_on_to_wait,
    run_operation,
    show_running,
    show_waiting,
    wait_up_to,
)


@workflow.defn
class RecoverVm:
    """The durable operation `vm.recover`."""

    @workflow.init
    def __init__(self, order: RecoverVmOrder) -> None:
        self._order = order
        self._looks_wanted = 0
        self._closed = order.closed
        self._paused_since: datetime | None = None
        self._resumes = 0

    @workflow.run
    async def run(self, order: RecoverVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._recover, self._left)

    @workflow.signal
    def look_again(self) -> None:
        """Something may have changed: do not wait for the next look."""
        self._looks_wanted += 1

    async def _recover(self) -> str:
        waited = False
        while True:
            go_on()
            looks = self._looks_wanted
            verdict = await self._examine()
            if verdict.move in (NextMove.NOTHING, NextMove.LEAVE):
                return verdict.why
            if verdict.move is NextMove.RESUME:
                if await self._resume():
                    return f"{verdict.why}: it goes on"
            elif verdict.move is not NextMove.HOLD:
                settled = await self._settle(verdict)
                if verdict.move is not NextMove.LATER or settled.runs_after_all:
                    if waited:
                        await show_running(self._order)
                    return _sentence(self._order, verdict, settled)
            waited = True
            await self._wait(verdict, looks)

    async def _examine(self) -> Verdict:
        return await workflow.execute_activity_method(
            VmRecovery.examine,
            self._look(),
            **options.guest(self._order.policy, f"look at {self._order.vm_name}"),
        )

    async def _resume(self) -> bool:
        go_on()
        self._paused_since = self._paused_since or workflow.now()
        goes_on = await workflow.execute_activity_method(
            VmRecovery.resume,
            self._look(),
            **options.guest(self._order.policy, f"let {self._order.vm_name} go on"),
        )
        self._resumes += 1
        return goes_on

    async def _settle(self, verdict: Verdict) -> Settled:
        go_on()
        name, run = self._order.vm_name, self._order.run
        step = VmRecovery.restart if self._closed else VmRecovery.settle
        what = "start it again" if self._closed else f"close its run on {run.host_name}"
        settled = await workflow.execute_activity_method(
            step,
            SettleOrder(examine=self._look(), verdict=verdict),
            **options.guest(self._order.policy, f"{name}: {what}"),
        )
        self._closed = self._closed or not settled.runs_after_all
        return settled

    async def _wait(self, verdict: Verdict, looks: int) -> None:
        wait_s, detail = ELSEWHERE_LOOK_S, verdict.why
        if verdict.move is NextMove.RESUME:
            doublings = min(self._resumes - 1, 10)
            wait_s = min(RESUME_AGAIN_S * 2.0**doublings, RESUME_AGAIN_MAX_S)
            at = _clock(workflow.now() + options.seconds(wait_s))
            detail = f"{detail}, and pauses again when it may go on; next try at {at}"
        if verdict.next_try_at is not None:
            wait_s = max(1.0, (verdict.next_try_at - workflow.now()).total_seconds())
            detail = f"{detail}; next try at {_clock(verdict.next_try_at)}"
        go_on_to_wait()
        await show_waiting(self._order, verdict.code, detail)
        if workflow.info().is_continue_as_new_suggested():
            go_on_anew(self._order.model_copy(update={"closed": self._closed}))
        await wait_up_to(wait_s, lambda: self._looks_wanted > looks, "look again")

    def _look(self) -> ExamineOrder:
        order = self._order
        return ExamineOrder(
            operation_id=order.operation_id,
            attempt=order.attempt,
            run=order.run,
            deadline_s=order.policy.define_deadline_s,
            closed=self._closed,
            paused_s=self._paused_s(),
            hung=order.hung,
        )

    def _paused_s(self) -> float:
        since = self._paused_since
        return 0.0 if since is None else (workflow.now() - since).total_seconds()

    async def _left(self) -> str:
        name = self._order.vm_name
        if self._closed:
            return f"{name} is down; nothing starts it again by itself"
        return f"{name} was left as it was found"


def _sentence(order: RecoverVmOrder, verdict: Verdict, settled: Settled) -> str:
    if settled.runs_after_all:
        return settled.why or f"{order.vm_name} runs on {order.run.host_name} after all"
    if settled.start_id is not None:
        return f"{verdict.why}; started again by {settled.start_id}"
    return verdict.why


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

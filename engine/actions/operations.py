"""Acting on operations: cancel, retry, pause, resume, and another priority.

Each is done within its transaction; what a workflow has to hear of it goes to the outbox.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from domain.context import PriorityClass
from domain.errors import Conflict, Denied, Refused
from domain.operations import OperationState
from domain.permissions import Permission, Role
from domain.priorities import RAISES_TO
from engine.actions.base import (
    Action,
    Done,
    Params,
    Plan,
    Problems,
    Target,
    Tx,
    existing,
    post_once,
)
from engine.cancelling import cancel_operation, too_late
from engine.closing import BATCH
from engine.retrying import UNSUCCESSFUL, Judgement, again, judged_again
from store import control, plumbing
from store.rows import Row


class OnOperation(Params):
    """Which operation."""

    operation_id: UUID


P = TypeVar("P", bound=OnOperation)


class OnOperationAction(Action[P, Row], Generic[P]):
    """What they share: the target is an operation, and its state is judged by the matrix."""

    permission = Permission.OPERATION_CONTROL
    priority = PriorityClass.PERSON

    async def plan(self, tx: Tx, params: P, problems: Problems) -> Plan[Row]:
        """The operation as it stands."""
        row = await existing(tx, "operation", params.operation_id)
        return Plan(target=target_of(row), facts=row, state=row["state"])

    def forbidden(self, params: P, plan: Plan[Row], allowed: tuple[str, ...]) -> Refused:
        """It has ended, or has not begun, or does not stand still."""
        row, verb = plan.facts, self.kind.partition(".")[2]
        return Conflict(
            "OPERATION_STATE_FORBIDS",
            f"{plan.target.name} is {plan.state}; {verb} needs {' or '.join(allowed)}",
            next_step=f"look at it: `holdfast op show {row['id']}`",
            operation_id=str(row["id"]),
            state=plan.state,
        )


def target_of(row: Row) -> Target:
    """An operation as another one names it."""
    name = f"{row['kind']} {row['target_name']}"
    return Target("operation", row["id"], name[:64], row["cluster_id"])


class CancelOperation(OnOperation):
    """Stop an operation: at once when it has not begun, else by its workflow's own way."""


class CancelOperationAction(OnOperationAction[CancelOperation]):
    """`operation.cancel`: asking again is success."""

    params = CancelOperation
    kind = "operation.cancel"
    idempotent = True

    async def plan(self, tx: Tx, params: CancelOperation, problems: Problems) -> Plan[Row]:
        """Check that it is not past the point of no return."""
        plan = await super().plan(tx, params, problems)
        if plan.state in control.OPEN and await too_late(tx, plan.facts):
            problems.append(
                Conflict(
                    "CANCEL_TOO_LATE",
                    f"{plan.target.name} has claimed its host's VMs; their restarts run to the end",
                    next_step="cancel the start of a single VM instead: it is a child of this one",
                    operation_id=str(params.operation_id),
                )
            )
        return plan

    async def execute(self, tx: Tx, params: CancelOperation, plan: Plan[Row]) -> Done:
        """Close it, or ask its workflow."""
        before = {"state": plan.state}
        if plan.state == OperationState.CANCELLED:
            return Done(summary="it was cancelled already", before=before, after=before)
        summary = await cancel_operation(tx, plan.facts)
        tx.facts.forget("operation", params.operation_id)
        row = await existing(tx, "operation", params.operation_id)
        return Done(summary=summary, before=before, after={"state": row["state"]})


class RetryOperation(OnOperation):
    """Try an operation again that has not succeeded; of a batch, its children that have not."""


@dataclass(frozen=True)
class _Retry:
    """What the plan found."""

    row: Row
    judgement: Judgement


class RetryOperationAction(Action[RetryOperation, _Retry]):
    """`operation.retry`: the same operation in its next try; what is done already is read back."""

    params = RetryOperation
    kind = "operation.retry"
    permission = Permission.OPERATION_CONTROL

    async def plan(self, tx: Tx, params: RetryOperation, problems: Problems) -> Plan[_Retry]:
        """Check that it may be tried again, and judge it anew."""
        row = await existing(tx, "operation", params.operation_id)
        ended_badly = row["state"] in UNSUCCESSFUL
        found = await judged_again(tx, row) if ended_badly else Judgement()
        problems.extend(found.problems)
        return Plan(
            target=target_of(row),
            facts=_Retry(row, found),
            state=row["state"],
            steps=(f"try {row['attempt'] + 1}: go on from what is done already",),
        )

    async def execute(self, tx: Tx, params: RetryOperation, plan: Plan[_Retry]) -> Done:
        """Make it pending again with a fresh order, and have it started."""
        row = plan.facts.row
        done = await again(tx, row, plan.facts.judgement)
        return Done(
            summary=done.summary,
            before={"state": plan.state, "attempt": row["attempt"]},
            after={"state": OperationState.PENDING.value, "attempt": row["attempt"] + 1},
            data={"retried": done.retried, "refused": done.refused} if row["kind"] == BATCH else {},
        )

    def forbidden(
        self, params: RetryOperation, plan: Plan[_Retry], allowed: tuple[str, ...]
    ) -> Refused:
        """It runs, or it has succeeded."""
        return Conflict(
            "OPERATION_STATE_FORBIDS",
            f"{plan.target.name} is {plan.state}; retry needs {' or '.join(allowed)}",
            next_step="one that has succeeded needs no other try, and one that is open has not "
            "ended yet",
            operation_id=str(params.operation_id),
            state=plan.state,
        )


class PauseOperation(OnOperation):
    """Let an operation stand still at its next checkpoint."""


class PauseOperationAction(OnOperationAction[PauseOperation]):
    """`operation.pause`: only for operations whose workflow has checkpoints."""

    params = PauseOperation
    kind = "operation.pause"
    idempotent = True

    async def plan(self, tx: Tx, params: PauseOperation, problems: Problems) -> Plan[Row]:
        """Check that there is a workflow that can pause."""
        plan = await super().plan(tx, params, problems)
        if plan.state not in control.OPEN:
            return plan
        problems.unless(_pausable(tx, plan.facts), _not_pausable(plan))
        problems.unless(plan.facts["run_id"] is not None, _not_begun(plan))
        return plan

    async def execute(self, tx: Tx, params: PauseOperation, plan: Plan[Row]) -> Done:
        """Tell its workflow."""
        await _signal(tx, plan.facts, "pause")
        return Done(
            summary="asked to pause; it stands still before its next step that allows it",
            before={"state": plan.state},
            after={"pause": True},
        )


class ResumeOperation(OnOperation):
    """Let a paused operation go on."""


class ResumeOperationAction(OnOperationAction[ResumeOperation]):
    """`operation.resume`."""

    params = ResumeOperation
    kind = "operation.resume"

    async def execute(self, tx: Tx, params: ResumeOperation, plan: Plan[Row]) -> Done:
        """Tell its workflow."""
        await _signal(tx, plan.facts, "resume")
        return Done(summary="asked to go on", before={"state": plan.state}, after={"pause": False})


class PrioritiseOperation(OnOperation):
    """Give an operation, and what it has open below it, another priority class."""

    priority: PriorityClass


class PrioritiseOperationAction(OnOperationAction[PrioritiseOperation]):
    """`operation.prioritise`: class 1 stays for what the table gives it to."""

    params = PrioritiseOperation
    kind = "operation.prioritise"
    idempotent = True

    async def plan(self, tx: Tx, params: PrioritiseOperation, problems: Problems) -> Plan[Row]:
        """Check that nothing is pushed before fencing and recovery."""
        plan = await super().plan(tx, params, problems)
        role, own = tx.door.role_of(tx.context.principal), _is_recovery(tx, plan.facts)
        most = RAISES_TO[role]
        if own and most <= PriorityClass.PROTECTED:
            most = PriorityClass.RECOVERY
        if params.priority is PriorityClass.RECOVERY and not own:
            problems.append(_reserved(plan))
        elif params.priority < most:
            problems.append(_not_theirs(tx, role, most, params))
        return plan

    async def execute(self, tx: Tx, params: PrioritiseOperation, plan: Plan[Row]) -> Done:
        """Write it, and tell each workflow."""
        before, wish = plan.facts["priority"], int(params.priority)
        wanted = await _inherited(tx, plan.facts, wish)
        changed = {row["id"]: new for row, new in wanted if row["priority"] != new}
        await control.prioritise(tx.connection, changed)
        for row, _new in wanted:
            if row["id"] in changed and row["workflow"] is not None:
                tx.writes.post_soon(row["id"], tx.now, plumbing.PRIORITY)
        below = len(changed) - (plan.facts["id"] in changed)
        return Done(
            summary=f"priority {before} → {wish}" + (f", with {below} below it" if below else ""),
            before={"priority": before},
            after={"priority": wish},
        )


async def _inherited(tx: Tx, row: Row, wish: int) -> list[tuple[Row, int]]:
    """The operation and what is open below it, each with its class to be.

    A child that had its parent's class keeps following it; any other is raised, never lowered.
    """
    found = [(row, wish)]
    for child in await control.open_children(tx.connection, row["id"]):
        follows = child["priority"] == row["priority"]
        found += await _inherited(tx, child, wish if follows else min(child["priority"], wish))
    return found


async def _signal(tx: Tx, row: Row, name: str) -> None:
    await post_once(tx, row["id"], plumbing.SIGNAL, name)


def _action(tx: Tx, row: Row) -> Action[Any, Any] | None:
    return None if row["kind"] == BATCH else tx.door.kind_of(row)


def _pausable(tx: Tx, row: Row) -> bool:
    action = _action(tx, row)
    return True if action is None else action.pausable


def _is_recovery(tx: Tx, row: Row) -> bool:
    action = _action(tx, row)
    return action is not None and action.priority is PriorityClass.RECOVERY


def _not_pausable(plan: Plan[Row]) -> Refused:
    return Conflict(
        "NOT_PAUSABLE",
        f"{plan.target.name} has no point at which it may stand still",
        next_step=f"let it end, or cancel it: `holdfast op cancel {plan.facts['id']}`",
        operation_id=str(plan.facts["id"]),
    )


def _not_begun(plan: Plan[Row]) -> Refused:
    return Conflict(
        "OPERATION_NOT_BEGUN",
        f"{plan.target.name} is {plan.state} and has not begun, so there is nothing to pause",
        next_step=f"cancel it, and ask again later: `holdfast op cancel {plan.facts['id']}`",
        operation_id=str(plan.facts["id"]),
    )


def _not_theirs(tx: Tx, role: Role, most: PriorityClass, params: PrioritiseOperation) -> Refused:
    principal, wish = tx.context.principal, params.priority
    return Denied(
        "PRIORITY_DENIED",
        f"{principal} is {role} and gives class {most} at the most, not class {wish}",
        next_step=f"give it class {most}, or ask somebody whose role gives class {wish}",
        principal=principal,
        role=role.value,
        most=int(most),
    )


def _reserved(plan: Plan[Row]) -> Refused:
    return Conflict(
        "PRIORITY_RESERVED",
        f"class 1 is for fencing and recovery, and {plan.target.name} is neither",
        next_step="give it class 2: it then goes before all else that people ask for",
        priority=1,
    )

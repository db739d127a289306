"""The rows that an accepted action becomes."""

from typing import Any

from domain.context import ActionContext, PriorityClass
from domain.operations import OperationState
from engine.actions.base import Action, Done, Params, Plan, Tx
from store.ids import new_id
from store.operations import BATCH_TURN
from store.rows import Row


def operation_row(
    tx: Tx, action: Action[Any, Any], params: Params, plan: Plan[Any], done: Done, *, held: bool
) -> Row:
    """The operation: pending with its order, or ended at once where there is none."""
    context, ended = tx.context, done.order is None
    state = OperationState.SUCCEEDED if ended else OperationState.PENDING
    return {
        "id": tx.operation_id,
        "kind": action.kind,
        "state": state.value,
        "reason_code": BATCH_TURN if held and not ended else None,
        "waiting_for": None,
        "target_type": plan.target.type,
        "target_id": plan.target.id,
        "target_name": plan.target.name,
        "cluster_id": plan.target.cluster_id,
        "parent_id": context.parent_id,
        "incident_id": done.incident_id or context.incident_id,
        "priority": int(context.priority),
        "principal": context.principal,
        "reason": context.reason,
        "correlation_id": context.correlation_id,
        "workflow": None if ended else action.workflow,
        "order": None if done.order is None else done.order.model_dump(mode="json"),
        "params": None if ended else params.model_dump(mode="json"),
        "held": held and not ended,
        "progress_done": None if done.progress_total is None else 0,
        "progress_total": done.progress_total,
        "attempt": tx.attempt,
        "problem": None,
        "summary": done.summary or None,
        "created_at": tx.now,
        "started_at": tx.now if ended else None,
        "finished_at": tx.now if ended else None,
        "lock_deadline_at": None,
    }


def event_row(tx: Tx, action: Action[Any, Any], plan: Plan[Any], done: Done, word: str = "") -> Row:
    """The audit event: who, what, why, and what changed; of a further try also which one."""
    data = {"name": plan.target.name} | dict(done.data)
    return {
        "id": new_id(),
        "type": f"{action.kind}.{word or ('done' if done.order is None else 'accepted')}",
        "subject_type": plan.target.type,
        "subject_id": plan.target.id,
        "principal": tx.context.principal,
        "correlation_id": tx.context.correlation_id,
        "operation_id": tx.operation_id,
        "reason": tx.context.reason,
        "before": None if done.before is None else dict(done.before),
        "after": None if done.after is None else dict(done.after),
        "data": data if tx.attempt == 1 else data | {"attempt": tx.attempt},
        "at": tx.now,
    }


def context_of(row: Row) -> ActionContext:
    """On whose behalf, and as part of what, a known operation runs."""
    return ActionContext(
        principal=row["principal"],
        correlation_id=row["correlation_id"],
        reason=row["reason"],
        priority=PriorityClass(row["priority"]),
        incident_id=row["incident_id"],
        parent_id=row["parent_id"],
    )

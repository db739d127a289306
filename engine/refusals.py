"""The audit event of an action that was refused. It is written after the rollback, by itself."""

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.context import ActionContext
from domain.errors import EngineError
from engine.actions.base import Action, Params
from store.ids import new_id
from store.rows import Row

NOBODY = UUID(int=0)
"""The subject of a refused request that named no object yet."""


def refused_event(
    action: Action[Any, Any],
    params: Params,
    context: ActionContext,
    error: EngineError,
    now: datetime,
) -> Row:
    """Who was refused what, and every reason."""
    entity = action.kind.partition(".")[0]
    subject = getattr(params, f"{entity}_id", None)
    reasons = error.problems or (error,)
    problems = [{"code": one.code, "detail": one.detail[:1024]} for one in reasons]
    return {
        "id": new_id(),
        "type": f"{action.kind}.refused",
        "subject_type": entity,
        "subject_id": subject if isinstance(subject, UUID) else NOBODY,
        "principal": context.principal,
        "correlation_id": context.correlation_id,
        "operation_id": None,
        "reason": context.reason,
        "data": {"code": error.code, "detail": error.detail[:1024], "problems": problems},
        "at": now,
    }

"""A judged action as a person reads it before it is asked for."""

from typing import Any

from domain.errors import EngineError
from domain.locks import in_order
from engine.acceptance import Judged, busy
from engine.actions.base import Action, Target
from engine.views import DryRunView, LockView, ProblemView


def shown(judged: Judged, lock_wait_s: float) -> DryRunView:
    """What the action would do; a lock that may be waited for does not forbid it."""
    action, plan = judged.action, judged.plan
    against: list[EngineError] = list(judged.problems)
    if judged.blocked_by and not lock_wait_s:
        against.append(busy(judged.in_the_way))
    holders = {held.lock.entity: held for held in judged.in_the_way}
    locks = tuple(
        LockView(
            entity_type=lock.entity_type,
            entity_id=lock.entity_id,
            mode=lock.mode,
            held_by=holders[lock.entity].operation_id if lock.entity in holders else None,
            held_kind=holders[lock.entity].kind if lock.entity in holders else None,
        )
        for lock in in_order(plan.locks)
    )
    return DryRunView(
        kind=action.kind,
        allowed=not against,
        problems=tuple(ProblemView.of(problem) for problem in against),
        target_type=plan.target.type,
        target_id=plan.target.id,
        target_name=plan.target.name,
        permission=action.permission,
        priority=judged.priority,
        workflow=action.workflow,
        locks=locks,
        steps=plan.steps,
    )


def refused_view(action: Action[Any, Any], target: Target, error: EngineError) -> DryRunView:
    """An action that cannot even be planned."""
    return DryRunView(
        kind=action.kind,
        allowed=False,
        problems=tuple(ProblemView.of(problem) for problem in error.problems or (error,)),
        target_type=target.type,
        target_id=target.id,
        target_name=target.name,
        permission=action.permission,
        priority=action.priority,
        workflow=action.workflow,
        locks=(),
        steps=(),
    )

"""A judged action as a person reads it before it is asked for."""

from typing import Any

from domain.errors import EngineError, Refused
from domain.locks import in_order
from engine.acceptance import Judged, busy
from engine.actions.base import Action, Target
from engine.views import DryRunView, LockView, ProblemView


def shown(judged: Judged, lock_wait_s: float, refused: Refused | None = None) -> DryRunView:
    """What the action would do; one that would wait for its locks is accepted, and judged then.

    `refused`: what doing it has found, where it was tried.
    """
    action, plan = judged.action, judged.plan
    against: list[EngineError] = [] if judged.waits(lock_wait_s) else list(judged.problems)
    if judged.blocked_by and lock_wait_s <= 0:
        against.append(busy(judged.in_the_way))
    if refused is not None and not against:
        against += refused.problems or (refused,)
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
    """An action that cannot even be planned, or never begins."""
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

"""One action's way into the database: authorise → plan → lock → execute → operation and outbox.

Everything here happens inside one transaction that the caller owns, so the same code serves a
person's request, a batch of a thousand, and the start of a VM that is part of a recovery. What
differs is the `Terms` on which an action is accepted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import ActionContext, PriorityClass
from domain.errors import Conflict, Denied, Invalid, NotFound, Refused
from domain.locks import Held, in_order, in_the_way
from domain.matrix import MATRICES, allowed_in
from domain.operations import OperationState, Problem
from domain.permissions import Role, refuse
from domain.priorities import Urgency, priority_of
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.cancelling import supersede
from engine.facts import Facts
from engine.roles import Roles
from engine.rows import event_row, operation_row
from engine.writes import Writes
from store import incidents, locks, operations, plumbing
from store.ids import new_id
from store.rows import Row

LOCK_WAIT_MAX_S = 3600.0


@dataclass(frozen=True)
class Terms:
    """How an action is accepted.

    internal      the engine itself asks, as part of an operation that was authorised
    lenient       what may heal by waiting is no reason against it
    by_parent     the parent's workflow starts this one's: nothing goes to the outbox
    preempt       locks in the way are taken from their operations, which end as superseded
    held          a batch releases it later
    lock_wait_s   how long it may wait for its locks; 0 refuses at once
    asked         the priority class that the caller asks for
    """

    internal: bool = False
    lenient: bool = False
    by_parent: bool = False
    preempt: bool = False
    held: bool = False
    lock_wait_s: float = 0.0
    asked: PriorityClass | None = None


@dataclass(frozen=True)
class Judged:
    """An action that was planned and authorised, with everything that speaks against it."""

    action: Action[Any, Any]
    params: Params
    plan: Plan[Any]
    priority: PriorityClass
    problems: tuple[Refused, ...]
    in_the_way: tuple[Held, ...]

    @property
    def blocked_by(self) -> tuple[Held, ...]:
        """What is in the way, unless this action takes over all of it."""
        outranked = self.action.outranks(self.params)
        return () if all(held.kind in outranked for held in self.in_the_way) else self.in_the_way

    def waits(self, lock_wait_s: float) -> bool:
        """Whether it becomes an operation that waits: no wait makes a wrong request right."""
        if not self.blocked_by or lock_wait_s <= 0 or self.action.workflow is None:
            return False
        return not any(isinstance(problem, Invalid | NotFound) for problem in self.problems)


class Acceptance:
    """The pipeline over all actions."""

    def __init__(self, actions: Iterable[Action[Any, Any]], roles: Roles) -> None:
        self._by_params = {action.params: action for action in actions}
        self.by_kind: Mapping[str, Action[Any, Any]] = {
            action.kind: action for action in self._by_params.values()
        }
        self._roles = roles

    def action_of(self, params: Params) -> Action[Any, Any]:
        """The action of these parameters."""
        return self._by_params[type(params)]

    def denied(self, principal: str, action: Action[Any, Any]) -> Denied | None:
        """Why a principal may not ask for this kind of action at all, or None."""
        return refuse(principal, self._roles.of(principal), action.permission)

    def transaction(
        self,
        connection: AsyncConnection,
        now: datetime,
        context: ActionContext,
        operation_id: UUID | None = None,
        attempt: int = 1,
    ) -> Tx:
        """What actions work with inside one transaction."""
        return Tx(
            connection=connection,
            now=now,
            operation_id=operation_id or new_id(),
            context=context,
            facts=Facts(connection),
            writes=Writes(connection),
            door=self,
            attempt=attempt,
        )

    def role_of(self, principal: str) -> Role:
        """What a principal is to the engine."""
        return self._roles.of(principal)

    async def judge(self, tx: Tx, params: Params, terms: Terms) -> Judged:
        """Authorise and plan; Denied or NotFound are raised, other problems are listed."""
        action, problems = self.action_of(params), Problems(lenient=terms.lenient)
        role = self._roles.of(tx.context.principal)
        denied = None if terms.internal else self.denied(tx.context.principal, action)
        if denied is not None:
            raise denied
        plan = await action.plan(tx, params, problems)
        forbidden = _forbidden(action, params, plan)
        if forbidden is not None:
            problems.insert(0, forbidden)
        if terms.lock_wait_s > 0 and action.workflow is None:
            problems.append(_cannot_wait(action))
        urgency = Urgency(
            kind=action.kind,
            default=action.priority,
            protected=plan.protected,
            role=role,
            parent=tx.context.priority if terms.internal else None,
            asked=terms.asked,
        )
        held = await tx.facts.held(plan.locks)
        others = tuple(one for one in held if one.operation_id != tx.operation_id)
        return Judged(
            action=action,
            params=params,
            plan=plan,
            priority=priority_of(urgency),
            problems=tuple(problems),
            in_the_way=in_the_way(plan.locks, others),
        )

    async def accept(self, tx: Tx, params: Params, terms: Terms) -> UUID:
        """Accept one action; its operation. Raises the first refusal with all of them inside."""
        return await self.accept_judged(tx, await self.judge(tx, params, terms), terms)

    async def accept_judged(self, tx: Tx, judged: Judged, terms: Terms) -> UUID:
        """Accept what was judged in this very transaction."""
        tx = _at_priority(tx, judged.priority)
        if judged.waits(terms.lock_wait_s) and not terms.preempt:
            self._write_waiting(tx, judged, terms)
            return tx.operation_id
        refuse_all(judged.problems)
        await self._lock(tx, judged, preempt=terms.preempt)
        done = await judged.action.execute(tx, judged.params, judged.plan)
        row = operation_row(tx, judged.action, judged.params, judged.plan, done, held=terms.held)
        tx.writes.operation(row)
        self.take_locks(tx, judged)
        tx.writes.event(event_row(tx, judged.action, judged.plan, done))
        if done.order is not None and not terms.by_parent and not terms.held:
            tx.writes.post_soon(tx.operation_id, tx.now)
        if done.incident_id is not None:
            await tx.writes.flush()
            await incidents.link_operation(tx.connection, done.incident_id, tx.operation_id)
        return tx.operation_id

    async def again(self, tx: Tx, operation: Row, *, attempt: int, held: bool = False) -> Judged:
        """Accept a known operation anew from its parameters: granted its locks, or tried again.

        `tx` must carry the operation's id, context and the given attempt. `held`: its batch lets
        it go when its turn comes, and the caller tells it. Raises the refusal. Nothing of the
        operation itself is written before `tx.writes` is flushed.
        """
        judged = await self.judge_again(tx, operation)
        refuse_all(judged.problems)
        await self._lock(tx, judged, preempt=False)
        done = await judged.action.execute(tx, judged.params, judged.plan)
        assert done.order is not None, "only operations with a workflow are accepted again"
        order = done.order.model_dump(mode="json")
        values = operations.accepted_again(operation["id"], order, attempt, held=held)
        tx.writes.update(operations.ACCEPT_AGAIN, values)
        if done.incident_id is not None:
            await operations.belong_to(tx.connection, operation["id"], done.incident_id)
            await incidents.link_operation(tx.connection, done.incident_id, operation["id"])
        tx.facts.forget("operation", operation["id"])
        self.take_locks(tx, judged)
        tx.writes.event(event_row(tx, judged.action, judged.plan, done))
        if not held:
            tx.writes.post(plumbing.posting(new_id(), operation["id"], tx.now))
        return judged

    async def judge_again(self, tx: Tx, operation: Row) -> Judged:
        """Plan a known operation anew from its parameters, to accept it.

        Raises NotFound, Conflict (`PARAMS_OUTDATED`) for parameters that another release has
        stored, and Denied where it was never accepted and its principal may not do this.
        """
        if operation["order"] is None:
            denied = self.denied(operation["principal"], self.kind_of(operation))
            if denied is not None:
                raise denied
        return await self.plan_again(tx, operation)

    async def plan_again(self, tx: Tx, operation: Row) -> Judged:
        """The same to look at it only: whether its principal may still ask for it is no matter."""
        action = self.kind_of(operation)
        try:
            params = action.params.model_validate(operation["params"])
        except ValidationError as error:
            raise _outdated(operation, error) from error
        return await self.judge(tx, params, Terms(internal=True))

    async def problems_again(self, tx: Tx, operation: Row) -> tuple[Refused, ...]:
        """What speaks against accepting a known operation anew now; changes nothing."""
        judged = await self.judge_again(tx, operation)
        return (*judged.problems, *([busy(judged.in_the_way)] if judged.blocked_by else ()))

    def kind_of(self, operation: Row) -> Action[Any, Any]:
        """The action that an operation came from; Conflict (`PARAMS_OUTDATED`) without one."""
        try:
            return self.by_kind[operation["kind"]]
        except KeyError as error:
            raise _outdated(operation, error) from error

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Take back what accepting an operation wrote, its workflow never having claimed it."""
        return await self.kind_of(operation).undo(tx, operation)

    async def give_way(self, tx: Tx, operation: Row) -> str:
        """Take back what must not outlive an operation that another one takes over; a sentence."""
        action = self.by_kind.get(operation["kind"])  # one of another release keeps nobody waiting
        return "" if action is None else await action.give_way(tx, operation)

    async def _lock(self, tx: Tx, judged: Judged, *, preempt: bool) -> None:
        """Make the entities free for this operation."""
        if judged.blocked_by and not preempt:
            raise busy(judged.in_the_way)
        for held in judged.in_the_way:
            await _supersede(tx, held, judged)

    def take_locks(self, tx: Tx, judged: Judged) -> None:
        """Collect the operation's locks, and count them as taken for what comes after it."""
        if judged.action.workflow is None:
            return
        taken = []
        for lock in in_order(judged.plan.locks):
            tx.writes.lock(locks.row_of(lock, tx.operation_id, tx.now, tx.attempt))
            taken.append(
                Held(
                    lock=lock,
                    operation_id=tx.operation_id,
                    kind=judged.action.kind,
                    state=OperationState.PENDING.value,
                    generation=tx.attempt,
                )
            )
        tx.facts.note_taken(taken)

    def _write_waiting(self, tx: Tx, judged: Judged, terms: Terms) -> None:
        deadline = tx.now + timedelta(seconds=terms.lock_wait_s)
        row = operation_row(tx, judged.action, judged.params, judged.plan, Done(), held=False)
        row |= {
            "held": terms.held,
            "state": OperationState.WAITING.value,
            "reason_code": "LOCK_HELD",
            "waiting_for": busy(judged.in_the_way).detail,
            "workflow": judged.action.workflow,
            "params": judged.params.model_dump(mode="json"),
            "started_at": None,
            "finished_at": None,
            "lock_deadline_at": deadline,
        }
        tx.writes.operation(row)
        tx.writes.event(event_row(tx, judged.action, judged.plan, Done(), word="waiting"))


def refuse_all(problems: Iterable[Refused]) -> None:
    """Raise the first problem, carrying all; nothing when there is none."""
    listed = tuple(problems)
    if not listed:
        return
    first = listed[0]
    if len(listed) == 1:
        raise first
    detail = "; ".join(problem.detail for problem in listed)
    together = type(first)(first.code, detail, next_step=first.next_step, **first.context)
    together.problems = listed
    raise together


def busy(holders: tuple[Held, ...]) -> Conflict:
    """The refusal that names who holds what is wanted."""
    first = holders[0]
    more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    return Conflict(
        "OBJECT_BUSY",
        f"another operation ({first.kind}, {first.state}){more} works on this "
        f"{first.lock.entity_type.replace('_', ' ')}",
        next_step=f"wait for it: `holdfast op show {first.operation_id}`",
        holder_operation_id=str(first.operation_id),
    )


def _cannot_wait(action: Action[Any, Any]) -> Invalid:
    """Its parameters would have to lie in the database meanwhile, and some of them are secrets."""
    return Invalid(
        "LOCK_WAIT_NOT_POSSIBLE",
        f"{action.kind} is done at once or refused; it never waits for what others hold",
        next_step="ask without lock_wait_s, and again once the object is free",
        kind=action.kind,
    )


def _outdated(operation: Row, error: KeyError | ValidationError) -> Conflict:
    why = "there is no such action any more"
    if isinstance(error, ValidationError):
        # Only where it is wrong: a value may be a secret.
        wrong = [".".join(map(str, one["loc"])) for one in error.errors(include_input=False)]
        why = f"its parameters do not fit this release: {', '.join(wrong)[:300]}"
    return Conflict(
        "PARAMS_OUTDATED",
        f"{operation['kind']} of {operation['target_name']} cannot be judged anew: {why}",
        next_step="ask for the action anew",
        operation_id=str(operation["id"]),
    )


def _forbidden(action: Action[Any, Any], params: Params, plan: Plan[Any]) -> Refused | None:
    if plan.state is None or plan.target.type not in MATRICES:
        return None
    rule = action.rule(params)
    if rule in MATRICES[plan.target.type][plan.state]:
        return None
    return action.forbidden(params, plan, allowed_in(plan.target.type, rule))


def _at_priority(tx: Tx, priority: PriorityClass) -> Tx:
    if tx.context.priority is priority:
        return tx
    return replace(tx, context=tx.context.model_copy(update={"priority": priority}))


async def _supersede(tx: Tx, held: Held, judged: Judged) -> None:
    problem = Problem(
        code="SUPERSEDED",
        detail=f"{judged.action.kind} of {judged.plan.target.name} took over "
        f"{held.lock.entity_type} {judged.plan.target.name}",
        next_step=f"follow the operation that took over: `holdfast op show {tx.operation_id}`",
    )
    await supersede(tx, held.operation_id, problem)

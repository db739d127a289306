"""Many actions as one request: a parent operation, and a child for each of them.

All of it is one transaction. Each item is judged in its order like a request of its own, seeing
what the items before it have taken; what is refused becomes a child that failed, with its reason.
Children that need a workflow are let go at most `at_once` at a time, the most urgent first, some
right here and the others by the parent's workflow as children end.

all_or_nothing  one refusal refuses the batch, with the reasons of every item, and writes nothing.
stop_on_error   once an item is refused or has failed, those after it in the list never begin. So
                that they have not begun by then, children are let go in the order of the list,
                whatever their class; without it, in that order within a class.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.context import PriorityClass
from domain.errors import Conflict, Denied, EngineError, Invalid, Refused
from domain.operations import OperationState, Problem
from engine.acceptance import LOCK_WAIT_MAX_S, Acceptance, Judged, Terms
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.actions.batch import BATCH_MAX, RunBatch, RunBatchAction
from engine.previews import refused_view, shown
from engine.refusals import likely_target, recorded, refused_event
from engine.rows import event_row, operation_row
from engine.savepoints import savepoint
from engine.views import DryRunView
from store.ids import new_id
from store.rows import Row

AT_ONCE = 50
"""Children under way at a time by default. Higher: the batch ends sooner, and what others ask for
meanwhile waits longer behind it in hosts and database."""

STOPPED = "stopped_on_error"
"""The reason code of an item that never began because one before it failed."""

ENTITIES = ("cluster", "host", "vm", "network", "operation")
"""What the parameters of items are about, by a field `<entity>_id`: read ahead, all at once."""

PARENT = RunBatchAction()


class BatchOptions(Frozen):
    """How a caller wants a batch to be taken.

    The last two count for each of its items, a wait for those alone that can wait.
    """

    stop_on_error: bool = False
    all_or_nothing: bool = False
    at_once: int = Field(default=AT_ONCE, ge=1, le=BATCH_MAX)
    lock_wait_s: float = Field(default=0.0, ge=0, le=LOCK_WAIT_MAX_S)
    priority: PriorityClass | None = None


class BatchReceipt(Frozen):
    """The answer to a batch: its operation, and the number of items by what became of them.

    Of a batch that had been accepted before only the operation is told.
    """

    operation_id: UUID
    replayed: bool = False
    accepted: int = 0
    refused: int = 0
    stopped: int = 0


def check_size(items: int) -> None:
    """Invalid unless a batch has one item at least and `BATCH_MAX` at most."""
    if items == 0:
        raise Invalid(
            "BATCH_EMPTY", "a batch of 0 actions does nothing", next_step="name at least one action"
        )
    if items > BATCH_MAX:
        raise Invalid(
            "BATCH_TOO_LARGE",
            f"{items} actions are too many for one batch, which takes at most {BATCH_MAX}",
            next_step="send them as several batches",
            items=items,
            most=BATCH_MAX,
        )


def described(
    acceptance: Acceptance,
    items: Sequence[Params],
    options: BatchOptions,
    clusters: Collection[UUID | None] = (),
) -> RunBatch:
    """What the batch's own operation keeps of a request."""
    return RunBatch(
        title=_title([acceptance.action_of(params).kind for params in items]),
        total=len(items),
        at_once=options.at_once,
        stop_on_error=options.stop_on_error,
        cluster_id=next(iter(clusters)) if len(clusters) == 1 else None,
    )


class Batch:
    """One try to accept a batch, in one transaction whose operation is the parent."""

    def __init__(
        self, acceptance: Acceptance, tx: Tx, items: Sequence[Params], options: BatchOptions
    ) -> None:
        self._acceptance = acceptance
        self._tx = tx
        self._params = items
        self._kinds: set[type[Params]] = {type(params) for params in items}
        self._items = [(acceptance.action_of(params), params) for params in items]
        self._options = options
        self._terms = Terms(lock_wait_s=options.lock_wait_s, asked=options.priority, held=True)
        self._unwaiting = replace(self._terms, lock_wait_s=0.0)
        self._context = tx.context.model_copy(update={"parent_id": tx.operation_id})
        self._refused: dict[int, Refused] = {}
        self._clusters: set[UUID | None] = set()
        self._most_urgent = max(PriorityClass)
        self._stopped = 0

    async def accept(self) -> BatchReceipt:
        """Collect all rows; Denied when nothing in it is allowed, Invalid (`BATCH_REFUSED`)."""
        self._refuse_denied()
        await self._warm()
        for index in range(len(self._items)):
            await self._take(index)
        if self._refused and self._options.all_or_nothing:
            raise self._refusal()
        await self._write_parent()
        refused = len(self._refused)
        return BatchReceipt(
            operation_id=self._tx.operation_id,
            accepted=len(self._items) - refused - self._stopped,
            refused=refused,
            stopped=self._stopped,
        )

    async def preview(self) -> tuple[DryRunView, ...]:
        """What becomes of each item; Denied. It is done as if asked for: the caller undoes it.

        An item may depend on all that those before it write, which only writing it shows.
        """
        self._refuse_denied()
        await self._warm()
        return tuple([await self._seen(index) for index in range(len(self._items))])

    async def _seen(self, index: int) -> DryRunView:
        action, params = self._items[index]
        judged, error = await self._take(index)
        if judged is not None:
            return shown(judged, self._terms_for(action).lock_wait_s, error)
        assert error is not None
        return refused_view(action, await likely_target(self._tx, action, params), error)

    def _child(self) -> Tx:
        whole = self._tx
        return Tx(
            connection=whole.connection,
            now=whole.now,
            operation_id=new_id(),
            context=self._context,
            facts=whole.facts,
            writes=whole.writes,
            door=whole.door,
        )

    def _refuse_denied(self) -> None:
        principal = self._tx.context.principal
        actions = {action.kind: action for action, _params in self._items}
        denied: list[Denied | None] = [
            self._acceptance.denied(principal, action) for action in actions.values()
        ]
        if denied[0] is not None and all(denied):
            raise denied[0]

    async def _warm(self) -> None:
        for entity in ENTITIES:
            name = f"{entity}_id"
            named = {kind for kind in self._kinds if name in kind.model_fields}
            found = (getattr(params, name) for params in self._params if type(params) in named)
            await self._tx.facts.warm(entity, (one for one in found if one is not None))

    async def _take(self, index: int) -> tuple[Judged | None, Refused | None]:
        """Accept one item or write that it was not; its judgement if any, and why it was not."""
        action, params = self._items[index]
        tx = self._child()
        if self._refused and self._options.stop_on_error and not self._options.all_or_nothing:
            return None, await self._stop(tx, action, params)
        judged: Judged | None = None
        try:
            judged = await self._acceptance.judge(tx, params, self._terms_for(action))
            await self._accept(tx, judged)
        except Refused as error:
            self._refused[index] = error
            await self._write_refused(tx, action, params, judged, error)
            return judged, error
        self._note(judged)
        return judged, None

    async def _accept(self, tx: Tx, judged: Judged) -> None:
        """Accept one item; refused half way, it leaves nothing written or collected."""
        mark, terms = tx.writes.mark(), self._terms_for(judged.action)
        try:
            if judged.action.collects:
                await self._acceptance.accept_judged(tx, judged, terms)
                return
            async with savepoint(tx):
                await self._acceptance.accept_judged(tx, judged, terms)
        except Refused:
            tx.writes.back_to(mark)
            raise

    def _terms_for(self, action: Action[Any, Any]) -> Terms:
        """Held until all are judged; what has no workflow never waits."""
        return self._unwaiting if action.workflow is None else self._terms

    def _note(self, judged: Judged) -> None:
        self._clusters.add(judged.plan.target.cluster_id)
        self._most_urgent = min(self._most_urgent, judged.priority)

    async def _write_refused(
        self,
        tx: Tx,
        action: Action[Any, Any],
        params: Params,
        judged: Judged | None,
        error: Refused,
    ) -> None:
        if self._options.all_or_nothing:
            return
        target = judged.plan.target if judged else await likely_target(tx, action, params)
        target = await self._of_batch(tx, target)
        problem = Problem.of(error).model_dump(mode="json")
        row = _ended(tx, action, params, target, OperationState.FAILED)
        tx.writes.operation(row | {"problem": problem})
        event = refused_event(action, params, tx.context, error, tx.now)
        tx.writes.event(event | {"operation_id": tx.operation_id})

    async def _stop(self, tx: Tx, action: Action[Any, Any], params: Params) -> Refused:
        """Write an item that never begins; why it does not."""
        self._stopped += 1
        target = await self._of_batch(tx, await likely_target(tx, action, params))
        first = min(self._refused)
        summary = f"never began: action {first + 1} of {len(self._items)} was refused"
        row = _ended(tx, action, params, target, OperationState.CANCELLED)
        tx.writes.operation(row | {"reason_code": STOPPED, "summary": summary})
        plan = Plan(target=target, facts=None)
        tx.writes.event(event_row(tx, action, plan, Done(), word="cancelled"))
        return Conflict(STOPPED.upper(), summary, next_step="correct that one, or leave it out")

    async def _of_batch(self, tx: Tx, target: Target) -> Target:
        """What a row of an item that never began may name, counted among the batch's clusters."""
        target = await recorded(tx, target)
        self._clusters.add(target.cluster_id)
        return target

    def _refusal(self) -> Invalid:
        index, first = min(self._refused.items())
        count, total = len(self._refused), len(self._items)
        error = Invalid(
            "BATCH_REFUSED",
            f"nothing was accepted: {count} of {total} actions were refused, the first is number "
            f"{index + 1}: {first.detail}",
            next_step="correct them or leave them out, or ask without all_or_nothing",
            refused=count,
            total=total,
        )
        error.problems = tuple(
            _located(reason, at, self._items[at][0].kind)
            for at, refusal in sorted(self._refused.items())
            for reason in refusal.problems or (refusal,)
        )
        return error

    async def _write_parent(self) -> None:
        params = described(self._acceptance, self._params, self._options, self._clusters)
        context = self._tx.context.model_copy(update={"priority": self._most_urgent})
        tx = replace(self._tx, context=context)
        plan = await PARENT.plan(tx, params, Problems())
        done = await PARENT.execute(tx, params, plan)
        tx.writes.let_go(params.at_once, tx.now, urgent_first=params.urgent_first)
        tx.writes.parent(operation_row(tx, PARENT, params, plan, done, held=False))
        tx.writes.event(event_row(tx, PARENT, plan, done))
        tx.writes.post_soon(tx.operation_id, tx.now)


def _title(kinds: Sequence[str]) -> str:
    counts = Counter(kinds).most_common()
    if len(counts) > 2:
        return f"{len(kinds)} actions of {len(counts)} kinds"
    return ", ".join(f"{count} × {kind}" for kind, count in counts)[:64]


def _ended(
    tx: Tx, action: Action[Any, Any], params: Params, target: Target, state: OperationState
) -> Row:
    """The row of an item that never began; what has a workflow may be tried again from it."""
    row = operation_row(tx, action, params, Plan(target=target, facts=None), Done(), held=False)
    row |= {"state": state.value, "started_at": None, "workflow": action.workflow}
    if action.workflow is not None:
        row["params"] = params.model_dump(mode="json")
    return row


def _located(reason: EngineError, index: int, kind: str) -> EngineError:
    context = reason.context | {"index": index, "kind": kind}
    return type(reason)(reason.code, reason.detail, next_step=reason.next_step, **context)

"""A further try of an operation that has ended without success.

It is the same operation: its id, who asked, why, and its parent stay; its next try has a workflow
and a branch of the step tree of its own. The try is accepted like a fresh request, from the
parameters that were kept: judged against what is there now, its locks taken again. What earlier
tries have done is read back by each step, so the try goes on where they failed.

A child of an open batch takes a turn like any other: one that is free at once, else its next. Of a
batch that stops on error nothing is tried again behind a failure that stays: its next look would
end that at once.
"""

from dataclasses import dataclass, replace

from domain.errors import Conflict, Refused
from domain.operations import OPEN_STATES, OperationState
from engine.actions.base import Tx
from engine.actions.batch import RunBatch
from engine.cancelling import of_operation
from engine.closing import BATCH, EMPTYING
from engine.savepoints import savepoint
from engine.writes import Writes
from store import batches, control, locks, operations, planned, plumbing
from store.ids import new_id
from store.rows import Row

UNSUCCESSFUL = ("failed", "cancelled", "needs_attention")
LETTING_GO = set(OPEN_STATES) - {OperationState.CANCELLING}
"""States of a batch in which it lets children go, or will again."""


@dataclass(frozen=True)
class Judgement:
    """What speaks against another try, and of a batch the children that it is about.

    in_order   a child that cannot be tried again keeps those after it from it
    left       what is said of children that stay behind one
    """

    problems: tuple[Refused, ...] = ()
    children: tuple[Row, ...] = ()
    in_order: bool = False
    left: str = ""


@dataclass(frozen=True)
class Again:
    """What was done: how many operations are tried again, and how many could not be."""

    summary: str
    retried: int = 1
    refused: int = 0


async def judged_again(tx: Tx, row: Row) -> Judgement:
    """Whether an operation may be tried again now; NotFound when what it is about is gone."""
    if row["kind"] == BATCH:
        return await _judged_batch(tx, row)
    if not _is_retryable(tx, row):
        return Judgement((_not_retryable(row),))
    tx = of_operation(tx, row, attempt=row["attempt"] + 1)
    return Judgement(await tx.door.problems_again(tx, row))


async def again(tx: Tx, row: Row, found: Judgement) -> Again:
    """Accept the next try; raises the refusal. A batch's children are each accepted or left.

    It is written at once: what comes after in this transaction may be about the same operations.
    """
    writes = Writes(tx.connection)
    done = await _again(replace(tx, writes=writes), row, found)
    await writes.flush()
    tx.writes.to_tell.update(writes.to_tell)
    return done


async def _again(tx: Tx, row: Row, found: Judgement) -> Again:
    if row["kind"] == BATCH:
        return await _batch_again(tx, row, found)
    held = await _has_no_turn(tx, row)
    await control.forget_posts(tx.connection, [row["id"]], tx.now)
    await _accept(tx, row, held=held)
    then = ", when its batch lets it go" if held else ""
    return Again(f"try {row['attempt'] + 1} goes on from what is done already{then}")


async def _has_no_turn(tx: Tx, row: Row) -> bool:
    """Whether its batch lets it go later: others have all the turns, or it stands still."""
    if row["parent_id"] is None:
        return False
    parent = await operations.get(tx.connection, row["parent_id"])
    if parent is None or parent["kind"] != BATCH or parent["state"] not in LETTING_GO:
        return False
    if parent["state"] == OperationState.PAUSED:
        return True
    counts = await batches.counts(tx.connection, parent["id"])
    under_way = sum(n for state, held, n in counts if state in operations.OPEN and not held)
    return under_way >= RunBatch.model_validate(parent["params"]).at_once


async def _accept(tx: Tx, row: Row, *, held: bool) -> None:
    attempt = row["attempt"] + 1
    await tx.door.again(of_operation(tx, row, attempt=attempt), row, attempt=attempt, held=held)


async def _judged_batch(tx: Tx, row: Row) -> Judgement:
    below = await operations.children(tx.connection, row["id"])
    in_order = RunBatch.model_validate(row["params"]).stop_on_error
    wanted = [child for child in below if child["state"] in UNSUCCESSFUL]
    able = [child for child in wanted if _is_retryable(tx, child)]
    failed = (child for child in wanted if child["state"] in batches.FAILED)
    stays = next((child for child in failed if not _is_retryable(tx, child)), None)
    if not in_order or stays is None:
        problems = () if able else (_nothing_to_retry(below, wanted),)
        return Judgement(problems, tuple(able), in_order)
    before = tuple(child for child in able if child["id"] < stays["id"])
    if not before:
        return Judgement((_stopped_by(stays, len(able)),))
    behind = len(able) - len(before)
    left = f", {behind} stay behind {_named(stays)}, which cannot be" if behind else ""
    return Judgement((), before, in_order, left)


def _is_retryable(tx: Tx, row: Row) -> bool:
    if row["params"] is None or row["workflow"] is None:
        return False
    return tx.door.kind_of(row).retryable


def _named(row: Row) -> str:
    return f"{row['kind']} of {row['target_name']}"


async def _batch_again(tx: Tx, row: Row, found: Judgement) -> Again:
    refused, accepted = [], []
    await _warm(tx, found.children)
    for child in found.children:
        try:
            await _child_again(tx, child)
        except Refused as error:
            refused.append(error)
            if found.in_order:
                break
        else:
            accepted.append(child["id"])
    if not accepted:
        raise refused[0]
    await control.forget_posts(tx.connection, accepted, tx.now)
    await reopen(tx, row)
    left = f", {len(refused)} could not be (the first: {refused[0].detail})" if refused else ""
    behind = len(found.children) - len(accepted) - len(refused)
    left += f", {behind} stay behind it" if behind else ""
    summary = f"{len(accepted)} of its actions are tried again{left}{found.left}"
    return Again(summary, len(accepted), len(refused))


async def _warm(tx: Tx, children: tuple[Row, ...]) -> None:
    for entity in ("cluster", "vm", "host"):
        about = {child["target_id"] for child in children if child["target_type"] == entity}
        if entity == "cluster":
            about |= {child["cluster_id"] for child in children if child["cluster_id"] is not None}
        await tx.facts.warm(entity, about)


async def _child_again(tx: Tx, child: Row) -> None:
    """One child, whose refusal takes back its own writes alone: in a savepoint where it writes any.

    It is held: the batch lets it go when its turn comes. Nothing is posted of it here.
    """
    if tx.door.kind_of(child).collects:
        mark = tx.writes.mark()
        try:
            await _accept(tx, child, held=True)
        except Refused:
            tx.writes.back_to(mark)
            raise
        return
    writes = Writes(tx.connection)
    async with savepoint(tx):
        await _accept(replace(tx, writes=writes), child, held=True)
        await writes.flush()
    tx.writes.to_tell.update(writes.to_tell)


async def reopen(tx: Tx, row: Row) -> int:
    """Let an operation's workflow run once more with the order it had; the new try's number."""
    attempt: int = row["attempt"] + 1
    await control.forget_posts(tx.connection, [row["id"]], tx.now)
    order = row["order"] | {"attempt": attempt}
    await operations.accept_again(tx.connection, row["id"], order, attempt)
    await locks.pass_on(tx.connection, row["id"], attempt)
    if row["kind"] in EMPTYING:
        await planned.begin_anew(tx.connection, row["target_id"])
    tx.facts.forget("operation", row["id"])
    tx.writes.post(plumbing.posting(new_id(), row["id"], tx.now))
    return attempt


def _not_retryable(row: Row) -> Refused:
    next_step = "ask for the action anew"
    if row["incident_id"] is not None:
        next_step = (
            f"look at its incident: `holdfast incident show {row['incident_id']}`; a host that "
            "misses polls is reported again by itself"
        )
    return Conflict(
        "NOT_RETRYABLE",
        f"{row['kind']} of {row['target_name']} was about one moment and is not tried again",
        next_step=next_step,
        operation_id=str(row["id"]),
    )


def _nothing_to_retry(below: list[Row], wanted: list[Row]) -> Refused:
    return Conflict(
        "NOTHING_TO_RETRY",
        f"of {len(below)} actions of this batch {len(wanted)} have not succeeded, and none of "
        "those can be tried again",
        next_step="ask for those anew",
        total=len(below),
        unsuccessful=len(wanted),
    )


def _stopped_by(row: Row, behind: int) -> Refused:
    return Conflict(
        "NOTHING_TO_RETRY",
        f"{_named(row)} has failed and cannot be tried again, and this batch stops on an error, so "
        f"the {behind} actions behind it that could be would never begin",
        next_step="ask for it anew, then for those behind it: each can be retried by itself, "
        "`holdfast op retry`",
        blocking_operation_id=str(row["id"]),
        behind=behind,
    )

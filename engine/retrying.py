"""A further try of an operation that has ended without success.

It is the same operation: its id, who asked, why, and its parent stay; its next try has a workflow
and a branch of the step tree of its own. The try is accepted like a fresh request, from the
parameters that were kept: judged against what is there now, its locks taken again. What earlier
tries have done is read back by each step, so the try goes on where they failed.
"""

from dataclasses import dataclass, replace

from domain.errors import Conflict, Refused
from engine.actions.base import Tx
from engine.cancelling import of_operation
from engine.closing import BATCH
from engine.writes import Writes
from store import control, operations, plumbing
from store.ids import new_id
from store.rows import Row

UNSUCCESSFUL = ("failed", "cancelled", "needs_attention")


@dataclass(frozen=True)
class Judgement:
    """What speaks against another try, and of a batch the children that it is about."""

    problems: tuple[Refused, ...] = ()
    children: tuple[Row, ...] = ()


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
    if row["params"] is None or row["workflow"] is None or not tx.door.kind_of(row).retryable:
        return Judgement((_not_retryable(row),))
    tx = of_operation(tx, row, attempt=row["attempt"] + 1)
    return Judgement(await tx.door.problems_again(tx, row))


async def again(tx: Tx, row: Row, children: tuple[Row, ...]) -> Again:
    """Accept the next try; raises the refusal. A batch's children are each accepted or left.

    It is written at once: what comes after in this transaction may be about the same operations.
    """
    writes = Writes(tx.connection)
    done = await _again(replace(tx, writes=writes), row, children)
    await writes.flush()
    tx.writes.to_tell.update(writes.to_tell)
    return done


async def _again(tx: Tx, row: Row, children: tuple[Row, ...]) -> Again:
    if row["kind"] == BATCH:
        return await _batch_again(tx, row, children)
    await control.forget_posts(tx.connection, [row["id"]], tx.now)
    await _accept(tx, row)
    return Again(f"try {row['attempt'] + 1} goes on from what is done already")


async def _accept(tx: Tx, row: Row, *, held: bool = False) -> None:
    attempt = row["attempt"] + 1
    await tx.door.again(of_operation(tx, row, attempt=attempt), row, attempt=attempt, held=held)


async def _judged_batch(tx: Tx, row: Row) -> Judgement:
    below = await operations.children(tx.connection, row["id"])
    wanted = [child for child in below if child["state"] in UNSUCCESSFUL]
    able = tuple(
        child
        for child in wanted
        if child["params"] is not None
        and child["workflow"] is not None
        and tx.door.kind_of(child).retryable
    )
    if able:
        return Judgement(children=able)
    problem = Conflict(
        "NOTHING_TO_RETRY",
        f"of {len(below)} actions of this batch {len(wanted)} have not succeeded, and none of "
        "those can be tried again",
        next_step="ask for those anew",
        total=len(below),
        unsuccessful=len(wanted),
    )
    return Judgement((problem,))


async def _batch_again(tx: Tx, row: Row, children: tuple[Row, ...]) -> Again:
    refused, accepted = [], []
    await _warm(tx, children)
    for child in children:
        try:
            await _child_again(tx, child)
        except Refused as error:
            refused.append(error)
        else:
            accepted.append(child["id"])
    if len(refused) == len(children):
        raise refused[0]
    await control.forget_posts(tx.connection, accepted, tx.now)
    await reopen(tx, row)
    left = f", {len(refused)} could not be (the first: {refused[0].detail})" if refused else ""
    retried = len(children) - len(refused)
    return Again(f"{retried} of its actions are tried again{left}", retried, len(refused))


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
    async with tx.connection.begin_nested():
        await _accept(replace(tx, writes=writes), child, held=True)
        await writes.flush()
    tx.writes.to_tell.update(writes.to_tell)


async def reopen(tx: Tx, row: Row) -> int:
    """Let an operation's workflow run once more with the order it had; the new try's number."""
    attempt: int = row["attempt"] + 1
    await control.forget_posts(tx.connection, [row["id"]], tx.now)
    order = row["order"] | {"attempt": attempt}
    await operations.accept_again(tx.connection, row["id"], order, attempt)
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

"""How an operation ends before its work does: cancelled here, or asked to end by its workflow.

An operation that no workflow has claimed is taken and closed in the same transaction, and what its
acceptance (or an earlier try) wrote is settled: a workflow that starts later cannot claim it. One
that is claimed is asked through the outbox, and its workflow says what was undone or left. One
whose locks another takes over is closed at once, and its workflow told to end.

A step of an earlier try may outlive its workflow. Then nothing is closed, and no lock is freed,
before the deadline of that step has passed: the sweeper does it.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from domain.hosts import HostEvent
from domain.inventory import HostState, RunState
from domain.operations import OperationState, Outcome, Problem
from engine.actions.base import Tx, post_once
from engine.closing import BATCH, close_operation, closed_event
from engine.rows import context_of
from store import batches, control, hosts, incidents, inventory, locks, operations, plumbing, runs
from store.notify import announce
from store.rows import Row

STEP_AT_WORK = "STEP_AT_WORK"
"""The reason code of an operation that is closed once the steps of an earlier try have ended."""

CLAIMED_PHASES = ("start", "ready", "done")
"""Phases of an incident in which its host's VMs have been claimed: their restarts go on."""


@dataclass(frozen=True)
class Settled:
    """What became of what an operation had begun; `left` is what a person has to look at."""

    summary: str
    left: Problem | None = None


def of_operation(tx: Tx, row: Row, *, attempt: int | None = None) -> Tx:
    """The same transaction on behalf of a known operation: its id, and who asked for it."""
    return replace(
        tx,
        operation_id=row["id"],
        context=context_of(row),
        attempt=row["attempt"] if attempt is None else attempt,
    )


async def cancel_operation(tx: Tx, row: Row) -> str:
    """Cancel one open operation; a sentence about what was undone, or that it was asked.

    Repeatable. Children of one that never began are cancelled with it.
    """
    if not await control.take_unclaimed(tx.connection, row["id"]):
        await ask_to_cancel(tx, row)
        return "asked to cancel; it says itself what was undone or left"
    await _cancel_below(tx, row)
    if await control.at_work(tx.connection, [row], tx.now):
        return await _cancel_later(tx, row)
    outcome = _ended(row, await settle(tx, row), "cancelled before it began")
    await close_operation(tx.connection, outcome, tx.now, "cancelled")
    _forget(tx, row)
    return outcome.summary


async def _cancel_later(tx: Tx, row: Row) -> str:
    """Have the sweeper close it once its steps must have ended.

    A workflow that was started already must not claim it meanwhile: it goes into a try that is
    never started.
    """
    why = "a step of an earlier try may still be at work: once its deadline has passed, this is "
    why += "closed and its locks are freed"
    if row["reason_code"] != STEP_AT_WORK:
        attempt: int = row["attempt"] + 1
        await control.forget_posts(tx.connection, [row["id"]], tx.now)
        await control.bar(tx.connection, row["id"], attempt)
        await locks.pass_on(tx.connection, row["id"], attempt)
    await control.show_reason(tx.connection, row["id"], STEP_AT_WORK, why)
    tx.facts.forget("operation", row["id"])
    return why


async def _cancel_below(tx: Tx, row: Row) -> None:
    """Cancel the open children: those that never began together, the others each by itself."""
    children, parents = await control.take_unclaimed_children(tx.connection, row["id"])
    unbegun = []
    for child in children:
        if child["run_id"] is None and child["incident_id"] is None and child["id"] not in parents:
            unbegun.append(child)
        else:
            await cancel_operation(tx, child)
    await cancel_unbegun(tx, unbegun, "cancelled", "cancelled before it began")


async def cancel_unbegun(tx: Tx, rows: list[Row], reason_code: str, sentence: str) -> None:
    """End children that no workflow has claimed and that this transaction has taken or read.

    What their acceptance wrote is taken back. Their parent is not told: it ends them itself.
    """
    vms = [row["target_id"] for row in rows if row["target_type"] == "vm"]
    await tx.facts.warm("vm", vms)
    summaries: dict[UUID, str] = {}
    events: list[Row] = []
    busy = await control.at_work(tx.connection, rows, tx.now)
    for row in rows:
        if row["id"] in busy:
            await _cancel_later(tx, row)
            continue
        settled = await settle(tx, row)
        outcome = _ended(row, settled, sentence)
        if settled.left is not None:
            await close_operation(tx.connection, outcome, tx.now, reason_code)
            continue
        summaries[row["id"]] = outcome.summary
        events.append(closed_event(row, outcome, tx.now))
    if summaries:
        await batches.cancel_held(tx.connection, summaries, reason_code, tx.now)
        await plumbing.append_events(tx.connection, events)
        await announce(tx.connection, "outbox")
    _forget(tx, *rows)


def _ended(row: Row, settled: Settled, sentence: str) -> Outcome:
    state = OperationState.CANCELLED if settled.left is None else OperationState.NEEDS_ATTENTION
    summary = f"{sentence}; {settled.summary}"
    return Outcome(operation_id=row["id"], state=state, problem=settled.left, summary=summary)


def _forget(tx: Tx, *rows: Row) -> None:
    """Let what comes after in this transaction see what has become of operations."""
    for row in rows:
        tx.facts.forget("operation", row["id"])
        tx.facts.forget(row["target_type"], row["target_id"])
    tx.facts.note_freed(*(row["id"] for row in rows))


async def ask_to_cancel(tx: Tx, row: Row) -> None:
    """Tell an operation's workflow to cancel; told once is told."""
    await control.begin_cancel(tx.connection, row["id"])
    tx.facts.forget("operation", row["id"])
    await _tell_to_cancel(tx, row["id"])


async def _tell_to_cancel(tx: Tx, operation_id: UUID) -> None:
    await post_once(tx, operation_id, plumbing.CANCEL)


async def supersede(tx: Tx, operation_id: UUID, problem: Problem) -> None:
    """End an operation whose locks another one takes over; ended already is success.

    A workflow that has claimed it is told, because it may stand still where nobody else could ever
    reach it. It finds its operation closed, so whatever it does about the request is not heard.
    """
    row = await operations.get(tx.connection, operation_id)
    if row is None or row["state"] not in control.OPEN:
        return
    summary = await tx.door.give_way(of_operation(tx, row), row)
    outcome = Outcome(
        operation_id=operation_id, state=OperationState.CANCELLED, problem=problem, summary=summary
    )
    await close_operation(tx.connection, outcome, tx.now, "superseded")
    if row["run_id"] is not None:
        await _tell_to_cancel(tx, operation_id)
    _forget(tx, row)


async def settle(tx: Tx, row: Row, *, given_up: bool = False) -> Settled:
    """Take back, in the database alone, what an operation without a workflow has left behind.

    `given_up`: nobody has asked for its end, so a host whose recovery it was is reported anew.
    """
    if row["order"] is None:
        return Settled("it waited for its locks, so nothing was done")
    if row["kind"] == BATCH:
        return Settled("what it had not released was cancelled")
    led = await _incident_led(tx, row)
    if led is not None:
        return await _abandoned(tx, row, led, "incomplete" if given_up else "cancelled")
    if row["target_type"] == "vm":
        return await _settled_vm(tx, row)
    done = await tx.door.undo(of_operation(tx, row), row)
    return Settled(done, await tx.door.kind_of(row).left(of_operation(tx, row), row))


async def _settled_vm(tx: Tx, row: Row) -> Settled:
    if row["run_id"] is None and row["attempt"] == 1:
        return Settled(await tx.door.undo(of_operation(tx, row), row))
    before = await tx.facts.active_run(row["target_id"])
    done = await tx.door.undo(of_operation(tx, row), row)
    problem = await tx.door.kind_of(row).left(of_operation(tx, row), row)
    if problem is not None or await tx.facts.get("vm", row["target_id"]) is None:
        return Settled(done, problem)
    if before is None:  # taking back never makes a run
        return Settled(f"{row['target_name']} is left down")
    run = await runs.active_run(tx.connection, row["target_id"])
    if run is None or before != run:
        return Settled(done)
    host = await inventory.get(tx.connection, "host", run["host_id"])
    where = "its host" if host is None else host["name"]
    name, left = row["target_name"], f"{row['target_name']} is left {run['state']} on {where}"
    if run["state"] not in (RunState.STARTING, RunState.STOPPING, RunState.MIGRATING):
        return Settled(left)
    problem = Problem(
        code="RUN_UNSETTLED",
        detail=f"generation {run['generation']} of {name} on {where} is {run['state']}, and no "
        "workflow follows it",
        next_step=f"`holdfast op retry {row['id']}` goes on with it, `holdfast vm stop {name}` "
        "ends it",
        context={"vm": name, "host": where, "run_state": run["state"]},
    )
    return Settled(left, problem)


async def _incident_led(tx: Tx, row: Row) -> Row | None:
    if row["incident_id"] is None:
        return None
    found = await incidents.get(tx.connection, row["incident_id"])
    return found if found is not None and found["operation_id"] == row["id"] else None


async def _abandoned(tx: Tx, row: Row, incident: Row, outcome: str) -> Settled:
    """Close the incident of a recovery that nobody runs any more."""
    name = row["target_name"]
    if incident["phase"] in CLAIMED_PHASES:
        await incidents.close(tx.connection, incident["id"], "incomplete", tx.now)
        return Settled(
            f"the VMs of {name} were claimed: their restarts are operations of their own"
        )
    host = await inventory.get(tx.connection, "host", row["target_id"])
    if host is not None and host["state"] == HostState.FENCING:
        why = "its recovery ended while its power was being cut"
        await hosts.move(tx.connection, host["id"], HostEvent.FAILED, why, tx.now)
    await incidents.close(tx.connection, incident["id"], outcome, tx.now)
    return Settled(f"nothing was moved; {name} is left with its VMs")


async def too_late(tx: Tx, row: Row) -> bool:
    """Whether an operation has passed the point from which it only runs to its end."""
    led = await _incident_led(tx, row)
    return led is not None and led["phase"] in CLAIMED_PHASES

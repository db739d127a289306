"""Lets starts of the engine's own take turns on a host, within the transaction that claims a run.

Whoever has to wait is written down as waiting in the transaction that counted, so that a turn that
becomes free after it finds and wakes it.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refused
from domain.inventory import RunState
from domain.start_turns import STARTS_AT_LIMIT, next_ones, why_not_yet
from engine.closing import look_again
from store import operations, runs, starts
from store.notify import announce
from store.rows import Row


async def take_turn(connection: AsyncConnection, run: Row, now: datetime) -> Refused | None:
    """Give a placed run its turn, or the reason for which it waits; to be followed by its claim.

    None also of a run that is not to be started any more, or that is frozen: its claim tells so.
    """
    run_id, operation_id = run["id"], run["operation_id"]
    if run["state"] != RunState.PLACED or operation_id is None:
        return None
    if not await starts.expected(connection, run_id, operation_id):
        return None
    if await runs.frozen(connection, run_id):
        return None
    there = await starts.starts_on(connection, run["host_id"])
    mine = next((turn for turn in there.turns if turn.run_id == run_id), None)
    if mine is None:
        return None
    why = why_not_yet(there, run_id, now)
    if why is not None:
        await starts.ask_turn(connection, run_id, now)
        await operations.wait(connection, operation_id, STARTS_AT_LIMIT, why, now)
        return _refusal(mine.vm, why)
    if mine.waits:
        await operations.resume(connection, operation_id)
    await starts.have_turn(connection, run_id, now)
    return None


async def wake_next(connection: AsyncConnection, host_id: UUID, now: datetime) -> None:
    """Let those look again whose turn on a host has come; repeatable.

    Nothing is lost with a signal but time: each of them looks again by itself.
    """
    if not await starts.anybody_waits(connection):
        return
    for turn in next_ones(await starts.starts_on(connection, host_id), now):
        await look_again(connection, turn.operation_id, now)
        await announce(connection, "outbox")


def _refusal(vm: str, why: str) -> Refused:
    return Refused(
        STARTS_AT_LIMIT,
        f"{vm} waits for its turn: {why}",
        next_step="nothing: it starts when its turn has come; "
        "`holdfast cluster edit NAME --starts-per-host N` lets more start at once",
        vm=vm,
    )

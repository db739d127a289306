"""The audit event of an action that was refused. It is written after the rollback, by itself.

Nothing else writes it again, so a database that fails just then is asked again for a moment.
Whoever was refused waits for that: what a longer outage swallows is in the log alone.
"""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import ActionContext
from domain.errors import EngineError, Unavailable
from engine.actions.base import Action, Params, Target, Tx
from store import plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

TRIES = 4
FIRST_WAIT_S = 0.05
"""Between the first two tries, doubled after each. Higher: more is remembered. Lower: a refusal in
an outage is answered sooner."""

NOBODY = UUID(int=0)
"""The subject of a refused request that named no object yet."""

REMEMBERED = ("type", "subject_id", "principal", "reason", "data")
"""What the log keeps of an event that could not be written."""

REASONS_MAX = 50
"""Most reasons in one event: a batch may have a thousand, and its answer carries all of them."""


SUBJECTS = {"fence": "fence_device", "affinity": "affinity_group"}
"""Objects whose actions go by a shorter word than they do."""


async def likely_target(tx: Tx, action: Action[Any, Any], params: Params) -> Target:
    """What a request is about whose plan was refused: as much as its parameters tell."""
    entity, subject = _subject(action, params)
    name = getattr(params, "name", None)
    if subject is None:
        cluster_id = getattr(params, "cluster_id", None)
        return Target(entity, NOBODY, str(name or entity)[:64], cluster_id)
    row = await tx.facts.get(entity, subject) or {}
    named = row.get("name") or row.get("target_name") or name or subject
    return Target(entity, subject, str(named)[:64], row.get("cluster_id"))


async def recorded(tx: Tx, target: Target) -> Target:
    """The target as a row may name it: of a cluster that was refused or is unknown there is no id.

    A row refers to its cluster, so one that names another cannot be written, nor what goes with it.
    """
    if target.cluster_id is None:
        return target
    known = await tx.facts.get("cluster", target.cluster_id)
    return target if known is not None else replace(target, cluster_id=None)


def refused_event(
    action: Action[Any, Any],
    params: Params,
    context: ActionContext,
    error: EngineError,
    now: datetime,
) -> Row:
    """Who was refused what, and every reason."""
    entity, subject = _subject(action, params)
    reasons = error.problems or (error,)
    listed = reasons[:REASONS_MAX]
    problems = [{"code": one.code, "detail": one.detail[:1024]} for one in listed]
    return {
        "id": new_id(),
        "type": f"{action.kind}.refused",
        "subject_type": entity,
        "subject_id": subject or NOBODY,
        "principal": context.principal,
        "correlation_id": context.correlation_id,
        "operation_id": None,
        "reason": context.reason,
        "data": {"code": error.code, "detail": error.detail[:1024], "problems": problems},
        "at": now,
    }


async def remember(database: Database, row: Row) -> None:
    """Write the event once; a try whose commit had no answer may have written it."""
    tried = 0

    async def write(connection: AsyncConnection) -> None:
        if tried == 0 or not await plumbing.has_event(connection, row["id"]):
            await plumbing.append_event(connection, row)

    while True:
        try:
            return await database.write(write)
        except Unavailable as error:
            tried += 1
            if tried == TRIES:
                told = {name: str(row[name]) for name in REMEMBERED}
                log.warning("refusal not remembered", code=error.code, **told)
                return None
        await asyncio.sleep(FIRST_WAIT_S * 2 ** (tried - 1))


def _subject(action: Action[Any, Any], params: Params) -> tuple[str, UUID | None]:
    """The kind of object that an action is about, and which one, if its parameters tell."""
    word = action.kind.partition(".")[0]
    entity = SUBJECTS.get(word, word)
    subject = getattr(params, f"{entity}_id", None)
    return entity, subject if isinstance(subject, UUID) else None

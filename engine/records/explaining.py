"""Keeps why decisions came out as they did, for their incident or for their operation."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.explain import Explanation, Question
from store import decisions
from store.rows import Row

SUBJECTS = {
    Question.HOST_FATE: "host",
    Question.HOST_PROOF: "host",
    Question.VM_FATE: "vm",
    Question.GUEST_FATE: "vm",
    Question.VM_PLACE: "vm",
    Question.VM_TARGET: "vm",
    Question.MAKE_ROOM: "vm",
}


async def note_explanations(
    connection: AsyncConnection,
    incident_id: UUID,
    told: Sequence[tuple[UUID, str, Explanation]],
    now: datetime,
) -> None:
    """Keep decisions, each about the subject with this id and name, in this order."""
    rows = [_row(*one) for one in told]
    await decisions.note(connection, incident_id, rows, now)


async def note_of_operation(
    connection: AsyncConnection,
    operation_id: UUID,
    subject: tuple[UUID, str, Explanation],
    now: datetime,
) -> None:
    """Keep one decision of an operation that serves no incident."""
    await decisions.note_of_operation(connection, operation_id, [_row(*subject)], now)


def _row(subject_id: UUID, name: str, told: Explanation) -> Row:
    plain = told.model_dump(mode="json")
    return {
        "question": plain["question"],
        "subject_type": SUBJECTS[told.question],
        "subject_id": subject_id,
        "subject_name": name,
        "chosen": told.chosen,
        "rule": plain["rule"],
        "why": told.why[:1024],
        "inputs": plain["inputs"],
        "rejected": plain["rejected"],
        "rejected_more": told.rejected_more,
    }

"""Keeps why an incident's decisions came out as they did."""

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
    Question.VM_PLACE: "vm",
    Question.MAKE_ROOM: "vm",
}


async def note_explanations(
    connection: AsyncConnection,
    incident_id: UUID,
    told: Sequence[tuple[UUID, str, Explanation]],
    now: datetime,
) -> None:
    """Keep decisions, each about the subject with this id and name, in this order."""
    rows = [_row(incident_id, *one) for one in told]
    await decisions.note(connection, incident_id, rows, now)


def _row(incident_id: UUID, subject_id: UUID, name: str, told: Explanation) -> Row:
    plain = told.model_dump(mode="json")
    return {
        "incident_id": incident_id,
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

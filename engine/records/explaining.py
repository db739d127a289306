"""Keeps why an incident's decisions came out as they did."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.explain import Explanation, Question, explain_place
from domain.placement import Told
from store import decisions

SUBJECTS = {Question.HOST_FATE: "host", Question.VM_PLACE: "vm"}


async def note_explanation(
    connection: AsyncConnection,
    incident_id: UUID,
    subject: tuple[UUID, str],
    told: Explanation,
    now: datetime,
) -> None:
    """Keep one decision about a subject, given its id and name."""
    subject_id, name = subject
    plain = told.model_dump(mode="json")
    row = {
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
    await decisions.note(connection, row, now)


async def note_place(
    connection: AsyncConnection, incident_id: UUID, told: Told, now: datetime
) -> None:
    """Keep why a VM of a dead host got its place, or none."""
    subject = (told.guest.vm_id, told.guest.name)
    await note_explanation(connection, incident_id, subject, explain_place(told), now)

"""What a person has approved of, as a decision takes it."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.storm import Approval
from store import approvals


async def approval_of(connection: AsyncConnection, incident_id: UUID) -> Approval | None:
    """The newest approval of an incident that counts now, or None."""
    row = await approvals.valid(connection, incident_id)
    return None if row is None else Approval(by=row["principal"], reason=row["reason"])

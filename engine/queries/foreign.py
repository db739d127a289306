"""Which guests run on a host that are none of ours: what could be imported, and is never touched.

Answered from the host's newest sample, so that asking costs the host nothing and works while it is
silent. What a guest is made of is read by its import (and by a dry run of that).
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.views_hosts import ForeignGuestsView, ForeignGuestView
from store import inventory, observations


class ForeignGuests(QueryParams):
    """The guests of one host that are none of ours."""

    host_id: UUID


class ForeignGuestsQuery(Query[ForeignGuests, ForeignGuestsView]):
    """Guests that ran when the host last answered, but for those whose UUID is a VM's id."""

    params = ForeignGuests

    async def answer(
        self, connection: AsyncConnection, params: ForeignGuests, now: datetime
    ) -> ForeignGuestsView:
        """By name; NotFound for a host that is not there."""
        if await inventory.get(connection, "host", params.host_id) is None:
            raise missing("host", params.host_id)
        sample = await observations.newest_sample(connection, params.host_id)
        if sample is None:
            return ForeignGuestsView(host_id=params.host_id, at=None, guests=())
        guests = {UUID(guest["vm_id"]): guest for guest in sample["guests"]}
        ours = await inventory.get_many(connection, "vm", sorted(guests))
        foreign = [_guest(guest) for vm_id, guest in guests.items() if vm_id not in ours]
        return ForeignGuestsView(
            host_id=params.host_id,
            at=sample["at"],
            guests=tuple(sorted(foreign, key=lambda guest: (guest.name, guest.guest_id))),
        )


def _guest(found: dict[str, Any]) -> ForeignGuestView:
    return ForeignGuestView(
        guest_id=UUID(found["vm_id"]),
        name=found["name"],
        state=found["state"],
        memory_mib=found["memory_kib"] // 1024,
    )

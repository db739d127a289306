"""Which hosts show a process of a VM, by the newest word of any poll.

A VM that somebody has moved or started by hand runs where no row says so: before it is started
anew, moved or adopted, this is asked.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState
from store.prebuilt import among, prebuilt
from store.rows import Row, many
from store.schema import host
from store.schema_ha import host_sample

READ = (
    *(HostState.UP, HostState.CONNECTING, HostState.PREPARING_MAINTENANCE),
    *(HostState.MAINTENANCE, HostState.NON_OPERATIONAL),
)
"""States of hosts that answer polls as far as anybody knows."""

MAY_RUN = tuple(state for state in HostState if state is not HostState.DOWN)
"""States of hosts that nothing proves to be dead."""


class Shower(NamedTuple):
    """A host that shows a VM."""

    host_id: UUID
    name: str
    at: datetime  # of the poll


@prebuilt
def _newest(cluster_id: UUID, /, *, states: tuple[HostState, ...]) -> sa.Select[Any]:
    other = host_sample.alias("other")
    newest = sa.select(sa.func.max(other.c.at)).where(other.c.host_id == host.c.id)
    return (
        sa.select(host.c.id, host.c.name, host_sample.c.guests, host_sample.c.at)
        .join(host_sample, host_sample.c.host_id == host.c.id)
        .where(
            host.c.cluster_id == cluster_id,
            host.c.removed_at.is_(None),
            among(host.c.state, [state.value for state in states]),
            host_sample.c.at == newest.correlate(host).scalar_subquery(),
        )
        .order_by(host.c.name)
    )


async def shown(
    connection: AsyncConnection,
    cluster_id: UUID,
    vm_ids: Collection[UUID],
    states: Sequence[HostState] = READ,
) -> dict[UUID, tuple[Shower, ...]]:
    """The hosts in these states that show each of these VMs, by name; one nobody shows is left out.

    As old as the last poll of each host: one that has just left a host may still be shown there,
    so whoever asks waits and asks again.
    """
    wanted = {str(vm_id): vm_id for vm_id in vm_ids}
    rows = await many(connection, _newest(cluster_id, states=tuple(states))) if wanted else ()
    found: dict[UUID, tuple[Shower, ...]] = {}
    for row in rows:
        for vm_id in {guest["vm_id"] for guest in row["guests"]} & wanted.keys():
            known = found.get(wanted[vm_id], ())
            found[wanted[vm_id]] = (*known, Shower(row["id"], row["name"], row["at"]))
    return found


async def elsewhere(
    connection: AsyncConnection,
    vm: Row,
    but: Collection[UUID | None],
    states: Sequence[HostState] = READ,
) -> tuple[str, ...]:
    """Names of the hosts in these states that show one VM, `but` those."""
    found = await shown(connection, vm["cluster_id"], [vm["id"]], states)
    return tuple(one.name for one in found.get(vm["id"], ()) if one.host_id not in but)

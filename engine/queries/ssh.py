"""How a host is reached over SSH, for people."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.soft_views import HostSshView, ssh_of
from store import inventory


class HostSsh(QueryParams):
    """The SSH access of one host."""

    host_id: UUID


class HostSshQuery(Query[HostSsh, HostSshView]):
    """How it is reached, and how its libvirtd was restarted so in the last hour."""

    params = HostSsh

    async def answer(
        self, connection: AsyncConnection, params: HostSsh, now: datetime
    ) -> HostSshView:
        """NotFound when the host is not there."""
        if await inventory.get(connection, "host", params.host_id) is None:
            raise missing("host", params.host_id)
        return await ssh_of(connection, params.host_id, now)

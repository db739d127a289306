"""Questions about networks."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.queries.pages import NAME_KEY, NamedParams, shown
from engine.views import NetworkView, Page
from store import networks
from store.pages import Named, Slice, page
from store.rows import Row


class ListNetworks(NamedParams):
    """Networks by name, of all clusters or of one."""

    cluster_id: UUID | None = None


class ListNetworksQuery(Query[ListNetworks, Page[NetworkView]]):
    """Networks with the number of VMs that have a card on them."""

    params = ListNetworks

    async def answer(
        self, connection: AsyncConnection, params: ListNetworks, now: datetime
    ) -> Page[NetworkView]:
        """By name."""
        whole = networks.listed(params.named, cluster_id=params.cluster_id)
        return await shown(connection, whole, params, NAME_KEY, _network)


class GetNetwork(QueryParams):
    """One network."""

    network_id: UUID


class GetNetworkQuery(Query[GetNetwork, NetworkView]):
    """One network with the number of VMs that have a card on it."""

    params = GetNetwork

    async def answer(
        self, connection: AsyncConnection, params: GetNetwork, now: datetime
    ) -> NetworkView:
        """NotFound when it is not there."""
        whole = networks.listed(Named(), network_id=params.network_id)
        rows, _ = await page(connection, whole, Slice(1))
        if not rows:
            raise missing("network", params.network_id)
        return _network(rows[0])


def _network(row: Row) -> NetworkView:
    return NetworkView(**{field: row[field] for field in NetworkView.model_fields})

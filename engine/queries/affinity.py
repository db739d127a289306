"""Questions about affinity groups."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.queries.pages import NAME_KEY, NamedParams, listed
from engine.views import AffinityGroupView, Page
from store import affinity
from store.rows import Row


class ListAffinityGroups(NamedParams):
    """Affinity groups by name, of all clusters or of one."""

    cluster_id: UUID | None = None


class ListAffinityGroupsQuery(Query[ListAffinityGroups, Page[AffinityGroupView]]):
    """Affinity groups with their members."""

    params = ListAffinityGroups

    async def answer(
        self, connection: AsyncConnection, params: ListAffinityGroups, now: datetime
    ) -> Page[AffinityGroupView]:
        """By name."""
        whole = affinity.listed(params.named, cluster_id=params.cluster_id)
        rows, cursor, total = await listed(connection, whole, params, NAME_KEY)
        found = await affinity.with_members(connection, rows)
        items = tuple(_group(row) for row in found)
        return Page(items=items, next_cursor=cursor, total=total)


class GetAffinityGroup(QueryParams):
    """One affinity group."""

    affinity_group_id: UUID


class GetAffinityGroupQuery(Query[GetAffinityGroup, AffinityGroupView]):
    """One affinity group with its members."""

    params = GetAffinityGroup

    async def answer(
        self, connection: AsyncConnection, params: GetAffinityGroup, now: datetime
    ) -> AffinityGroupView:
        """NotFound when it is not there."""
        rows = await affinity.groups(connection, id=params.affinity_group_id)
        if not rows:
            raise missing("affinity group", params.affinity_group_id)
        return _group(rows[0])


def _group(row: Row) -> AffinityGroupView:
    return AffinityGroupView(**{field: row[field] for field in AffinityGroupView.model_fields})

"""Why the decisions of an operation, and of what it ordered, came out as they did."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.views_explained import DecisionView, OperationExplanationView
from store import archive, decisions, operations
from store.rows import Row


class ExplainOperation(QueryParams):
    """Why each decision of one operation and of its parts came out as it did."""

    operation_id: UUID


class ExplainOperationQuery(Query[ExplainOperation, OperationExplanationView]):
    """Decisions with their rules, inputs and rejected alternatives."""

    params = ExplainOperation

    async def answer(
        self, connection: AsyncConnection, params: ExplainOperation, now: datetime
    ) -> OperationExplanationView:
        """In the order in which they were taken; one that ended long ago from the archive."""
        row = await operations.get(connection, params.operation_id)
        row = row or await archive.get(connection, params.operation_id)
        if row is None:
            raise missing("operation", params.operation_id)
        tree = await _tree(connection, row)
        kept = [*await _own(connection, tree), *await _of_incidents(connection, tree)]
        same = set(OperationExplanationView.model_fields) & set(row)
        return OperationExplanationView(
            **{field: row[field] for field in same - {"decisions"}},
            operation_id=row["id"],
            decisions=tuple(
                DecisionView(**{field: one[field] for field in DecisionView.model_fields})
                for one in sorted(kept, key=lambda one: (one["first_at"], one["id"]))
            ),
        )


async def _tree(connection: AsyncConnection, root: Row) -> list[Row]:
    """An operation and everything below it, kept or archived, read level by level."""
    found, level = [root], [root["id"]]
    while level:
        live = await operations.children_of(connection, level)
        old = await archive.children_of(connection, level)
        below = [row for part in (*live.values(), *old.values()) for row in part]
        found += below
        level = [row["id"] for row in below]
    return found


async def _own(connection: AsyncConnection, tree: list[Row]) -> list[Row]:
    """What the operations themselves have kept; of archived ones it stands in their documents."""
    live = [row["id"] for row in tree if "decisions" not in row]
    kept = await decisions.of_operations(connection, live)
    archived = [one for row in tree for one in row.get("decisions", ())]
    return [*(one for rows in kept.values() for one in rows), *archived]


async def _of_incidents(connection: AsyncConnection, tree: list[Row]) -> list[Row]:
    """What incidents have kept on what these operations are about; a host's recovery has it all."""
    targets: dict[UUID, set[tuple[str, UUID]]] = {}
    for row in tree:
        if row["incident_id"] is not None:
            about = (row["target_type"], row["target_id"])
            targets.setdefault(row["incident_id"], set()).add(about)
    found: list[Row] = []
    for incident_id, told_of in targets.items():
        whole = any(kind == "host" for kind, _ in told_of)
        for one in await decisions.of_incident(connection, incident_id):
            if whole or (one["subject_type"], one["subject_id"]) in told_of:
                found.append(one)
    return found

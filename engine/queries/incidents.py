"""Questions about incidents: what happened, on what proof, how long each phase took."""

from datetime import datetime
from itertools import pairwise
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.grades import grade_of_row, weakest
from engine.queries.base import Query, QueryParams, missing
from engine.queries.pages import ID_KEY, PageParams, shown
from engine.soft_views import soft_before
from engine.views import CertificateView, EvidenceView, IncidentView, IncidentVmView, Page
from engine.views_explained import DecisionView, ExplanationView
from store import decisions, incidents, inventory, pages
from store.rows import Row

PHASES = ("detect", "decide", "prove", "place", "start", "ready", "done")


class ListIncidents(PageParams):
    """Incidents, newest first: of all hosts or one, whatever became of them or still open."""

    host_id: UUID | None = None
    open: bool | None = None


class ListIncidentsQuery(Query[ListIncidents, Page[IncidentView]]):
    """One page of incidents without evidence."""

    params = ListIncidents

    async def answer(
        self, connection: AsyncConnection, params: ListIncidents, now: datetime
    ) -> Page[IncidentView]:
        """Newest first."""
        whole = pages.incidents(host_id=params.host_id, still_open=params.open)
        return await shown(connection, whole, params, ID_KEY, _incident)


class GetIncident(QueryParams):
    """One incident with its evidence, certificate and VMs."""

    incident_id: UUID


class GetIncidentQuery(Query[GetIncident, IncidentView]):
    """The whole story of one incident."""

    params = GetIncident

    async def answer(
        self, connection: AsyncConnection, params: GetIncident, now: datetime
    ) -> IncidentView:
        """With everything that belongs to it."""
        row = await incidents.get(connection, params.incident_id)
        if row is None:
            raise missing("incident", params.incident_id)
        facts = await incidents.evidence_of(connection, row["id"])
        certificates = await incidents.certificates_of(connection, row["id"])
        before = (row["host_id"], row["epoch"], row["opened_at"])
        return _incident(row).model_copy(
            update={
                "evidence": tuple(_evidence(fact) for fact in facts),
                "certificate": _certificate(certificates[-1]) if certificates else None,
                "vms": await self._vms(connection, row),
                "soft_steps": await soft_before(connection, *before),
            }
        )

    async def _vms(self, connection: AsyncConnection, row: Row) -> tuple[IncidentVmView, ...]:
        lost = await incidents.runs_lost(connection, row["id"])
        again = {run["vm_id"]: run for run in await incidents.runs_of(connection, row["id"])}
        vms = await _named(connection, "vm", {run["vm_id"] for run in lost})
        hosts = await _named(connection, "host", {run["host_id"] for run in again.values()})
        views = [_vm(row, vms[run["vm_id"]], again.get(run["vm_id"]), hosts) for run in lost]
        return tuple(sorted(views, key=lambda view: view.name))


class ExplainIncident(QueryParams):
    """Why each decision of one incident came out as it did."""

    incident_id: UUID


class ExplainIncidentQuery(Query[ExplainIncident, ExplanationView]):
    """Decisions with their rules, inputs and rejected alternatives."""

    params = ExplainIncident

    async def answer(
        self, connection: AsyncConnection, params: ExplainIncident, now: datetime
    ) -> ExplanationView:
        """In the order in which they were taken."""
        row = await incidents.get(connection, params.incident_id)
        if row is None:
            raise missing("incident", params.incident_id)
        kept = await decisions.of_incident(connection, row["id"])
        same = set(ExplanationView.model_fields) & set(row)
        return ExplanationView(
            **{field: row[field] for field in same},
            incident_id=row["id"],
            decisions=tuple(
                DecisionView(**{field: one[field] for field in DecisionView.model_fields})
                for one in kept
            ),
        )


async def _named(connection: AsyncConnection, entity: str, ids: set[UUID]) -> dict[UUID, Row]:
    # What has been removed since then still belongs to the story.
    return await inventory.get_many(connection, entity, sorted(ids), removed=True)


def _vm(incident: Row, vm: Row, run: Row | None, hosts: dict[UUID, Row]) -> IncidentVmView:
    since = incident["last_answer_at"] or incident["opened_at"]
    back = run["started_at"] if run else None
    return IncidentVmView(
        vm_id=vm["id"],
        name=vm["name"],
        protected=vm["protected"],
        host_before=incident["host_name"],
        host_after=hosts[run["host_id"]]["name"] if run else None,
        running_again_at=back,
        recovery_s=round((back - since).total_seconds(), 3) if back else None,
    )


def _incident(row: Row) -> IncidentView:
    began = {phase: datetime.fromisoformat(at) for phase, at in row["phases"].items()}
    same = set(IncidentView.model_fields) & set(row)
    fields = {field: row[field] for field in same} | {"open": row["open"] == 1}
    return IncidentView(**fields, phase_began=began, phases_s=phase_lengths(began))


def phase_lengths(began: dict[str, datetime]) -> dict[str, float]:
    """Seconds spent in each phase that has ended, from the times the phases began."""
    known = [(phase, began[phase]) for phase in PHASES if phase in began]
    return {
        phase: round((end - start).total_seconds(), 3)
        for (phase, start), (_next, end) in pairwise(known)
    }


def _evidence(row: Row) -> EvidenceView:
    same = set(EvidenceView.model_fields) & set(row)
    return EvidenceView(**{field: row[field] for field in same}, grade=grade_of_row(row))


def _certificate(row: Row) -> CertificateView:
    same = set(CertificateView.model_fields) & set(row)
    grade = weakest(grade_of_row(fact) for fact in row["evidence"])
    told = grade.told if grade else None
    return CertificateView(**{field: row[field] for field in same}, grade=grade, grade_told=told)

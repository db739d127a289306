"""Questions about incidents: what happened, on what proof, how long each phase took."""

from datetime import datetime
from itertools import pairwise
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams, missing
from engine.views import CertificateView, EvidenceView, IncidentView, IncidentVmView, Page
from store import incidents, inventory
from store.rows import Row

PHASES = ("detect", "decide", "prove", "place", "start", "ready", "done")


class ListIncidents(QueryParams):
    """Incidents, newest first."""

    limit: int = Field(default=50, ge=1, le=500)


class ListIncidentsQuery(Query[ListIncidents, Page]):
    """One page of incidents without evidence."""

    params = ListIncidents

    async def answer(
        self, connection: AsyncConnection, params: ListIncidents, now: datetime
    ) -> Page:
        """Newest first."""
        rows = await incidents.listing(connection, params.limit)
        return Page(items=tuple(_incident(row) for row in rows))


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
        return _incident(row).model_copy(
            update={
                "evidence": tuple(_evidence(fact) for fact in facts),
                "certificate": _certificate(certificates[-1]) if certificates else None,
                "vms": await self._vms(connection, row),
            }
        )

    async def _vms(self, connection: AsyncConnection, row: Row) -> tuple[IncidentVmView, ...]:
        hosts = {host["id"]: host["name"] for host in await inventory.listing(connection, "host")}
        vms = {vm["id"]: vm for vm in await inventory.listing(connection, "vm")}
        since = row["last_answer_at"] or row["opened_at"]
        again = {run["vm_id"]: run for run in await incidents.runs_of(connection, row["id"])}
        views = []
        for lost in await incidents.runs_lost(connection, row["id"]):
            vm, run = vms[lost["vm_id"]], again.get(lost["vm_id"])
            back = run["started_at"] if run else None
            views.append(
                IncidentVmView(
                    vm_id=vm["id"],
                    name=vm["name"],
                    protected=vm["protected"],
                    host_before=row["host_name"],
                    host_after=hosts[run["host_id"]] if run else None,
                    running_again_at=back,
                    recovery_s=round((back - since).total_seconds(), 3) if back else None,
                )
            )
        return tuple(sorted(views, key=lambda view: view.name))


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
    return EvidenceView(**{field: row[field] for field in EvidenceView.model_fields})


def _certificate(row: Row) -> CertificateView:
    return CertificateView(**{field: row[field] for field in CertificateView.model_fields})

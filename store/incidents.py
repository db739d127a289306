"""Statements on incidents, evidence, fence claims and death certificates."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.hosts import HostEvent
from domain.inventory import CONFIRMATION
from store import hosts
from store.judged import heard_since, pairs
from store.prebuilt import prebuilt
from store.rows import Row, changed, inserted, many, number, one
from store.schema import host
from store.schema_ha import (
    death_certificate,
    evidence,
    incident,
    vm_run,
)


async def open_incident(connection: AsyncConnection, values: Row) -> None:
    """Write an open incident; a second one for the same host and epoch breaks a unique index."""
    await inserted(connection, incident, values | {"open": 1})


@prebuilt
def _find_open(host_id: UUID, epoch: int, /) -> sa.Select[Any]:
    return sa.select(incident).where(
        incident.c.host_id == host_id, incident.c.epoch == epoch, incident.c.open == 1
    )


async def find_open(connection: AsyncConnection, host_id: UUID, epoch: int) -> Row | None:
    """The open incident of a host in an epoch, or None."""
    return await one(connection, _find_open(host_id, epoch))


async def open_of(connection: AsyncConnection, host_id: UUID) -> list[Row]:
    """Open incidents of a host, of whatever epoch, oldest first."""
    query = sa.select(incident).where(incident.c.host_id == host_id, incident.c.open == 1)
    return await many(connection, query.order_by(incident.c.id))


async def open_in(connection: AsyncConnection, cluster_id: UUID) -> list[str]:
    """Names of the hosts of a cluster that have an open incident."""
    query = (
        sa.select(host.c.name)
        .join(incident, incident.c.host_id == host.c.id)
        .where(host.c.cluster_id == cluster_id, incident.c.open == 1)
    )
    return [row["name"] for row in await many(connection, query.order_by(host.c.name))]


@prebuilt
def _get(incident_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(incident, host.c.name.label("host_name"))
        .join(host, host.c.id == incident.c.host_id)
        .where(incident.c.id == incident_id)
    )


async def get(connection: AsyncConnection, incident_id: UUID) -> Row | None:
    """One incident with its host's name."""
    return await one(connection, _get(incident_id))


@prebuilt
def _put(incident_id: UUID, /, *values: object, columns: tuple[str, ...]) -> sa.Update:
    query = incident.update().where(incident.c.id == incident_id)
    return query.values(dict(zip(columns, values, strict=True)))


async def _note(connection: AsyncConnection, incident_id: UUID, **values: object) -> None:
    columns = tuple(values)
    await changed(connection, _put(incident_id, *values.values(), columns=columns))


async def link_operation(
    connection: AsyncConnection, incident_id: UUID, operation_id: UUID
) -> None:
    """Name the operation that recovers from an incident."""
    await _note(connection, incident_id, operation_id=operation_id)


@prebuilt
def _reported_again(incident_id: UUID, /) -> sa.Update:
    query = incident.update().where(incident.c.id == incident_id)
    return query.values(reports=incident.c.reports + 1)


async def reported_again(connection: AsyncConnection, incident_id: UUID) -> None:
    """Count one more report of a failure that is known already."""
    await changed(connection, _reported_again(incident_id))


@prebuilt
def _phases(incident_id: UUID, /) -> sa.Select[Any]:
    return sa.select(incident.c.phases).where(incident.c.id == incident_id)


async def enter_phase(
    connection: AsyncConnection, incident_id: UUID, phase: str, now: datetime
) -> None:
    """Record when an incident entered a phase; the first time counts."""
    await enter_phases(connection, incident_id, **{phase: now})


async def enter_phases(connection: AsyncConnection, incident_id: UUID, **entered: datetime) -> None:
    """The same for several phases, in their order."""
    row = await one(connection, _phases(incident_id))
    phases = dict(row["phases"]) if row else {}
    for phase, at in entered.items():
        phases.setdefault(phase, at.isoformat())
    await _note(connection, incident_id, phase=list(entered)[-1], phases=phases)


async def note_ready(connection: AsyncConnection, incident_id: UUID, at: datetime) -> None:
    """Record when the last VM of an incident was ready, as far as it is known: the latest counts.

    The incident stays in the phase that it is in: others of its VMs may still be starting.
    """
    row = await one(connection, _phases(incident_id))
    phases = dict(row["phases"]) if row else {}
    known = phases.get("ready")
    if known is None or datetime.fromisoformat(known) < at:
        await _note(connection, incident_id, phases=phases | {"ready": at.isoformat()})


async def note_decision(connection: AsyncConnection, incident_id: UUID, decision: Row) -> None:
    """Keep the latest decision of an incident with its reasons."""
    await _note(connection, incident_id, decision=decision)


@prebuilt
def _close(incident_id: UUID, outcome: str, now: datetime, /) -> sa.Update:
    query = incident.update().where(incident.c.id == incident_id, incident.c.open == 1)
    return query.values(open=None, outcome=outcome, closed_at=now)


async def close(
    connection: AsyncConnection, incident_id: UUID, outcome: str, now: datetime
) -> bool:
    """Close an open incident; False when it is closed already."""
    return await changed(connection, _close(incident_id, outcome, now)) == 1


async def add_evidence(connection: AsyncConnection, values: Row) -> None:
    """Write one graded fact; facts are never changed."""
    await inserted(connection, evidence, values)


@prebuilt
def _evidence_of(incident_id: UUID, /) -> sa.Select[Any]:
    query = sa.select(evidence).where(evidence.c.incident_id == incident_id)
    return query.order_by(evidence.c.at, evidence.c.id)


async def evidence_of(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Every fact of an incident, oldest first."""
    return await many(connection, _evidence_of(incident_id))


async def judged(connection: AsyncConnection) -> list[Row]:
    """Open incidents whose host is not proven dead, oldest first, with its name."""
    query = (
        sa.select(incident, host.c.name.label("host_name"))
        .join(host, host.c.id == incident.c.host_id)
        .where(incident.c.open == 1, incident.c.phase.in_(("detect", "decide", "prove")))
    )
    return await many(connection, query.order_by(incident.c.id))


@prebuilt
def _facts_of_kind(incident_id: UUID, kind: str, /) -> sa.Select[Any]:
    return (
        sa.select(evidence)
        .where(evidence.c.incident_id == incident_id, evidence.c.kind == kind)
        .order_by(evidence.c.at, evidence.c.id)
    )


async def words_of(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """What people have said of an incident's host, oldest first."""
    return await many(connection, _facts_of_kind(incident_id, CONFIRMATION))


@prebuilt
def _stands(host_id: UUID, epoch: int, incident_id: UUID, /, *known: Any) -> sa.Select[Any]:
    opened = sa.exists().where(incident.c.id == incident_id, incident.c.open == 1)
    return sa.select(sa.func.count()).where(
        host.c.id == host_id, host.c.epoch == epoch, opened, ~heard_since(host_id, *known)
    )


async def issue_certificate(
    connection: AsyncConnection, values: Row, *, heard: Mapping[str, int], why: str
) -> bool:
    """Declare a host of an epoch dead; False when it was heard again, or stands elsewhere.

    False, too, once its incident is closed: nobody would start its VMs under the certificate.
    Moves the host to `down` in the same transaction. The unique index allows one valid certificate
    a host and epoch. The caller looks for an earlier one first, which makes this repeatable.
    """
    stands = _stands(values["host_id"], values["epoch"], values["incident_id"], *pairs(heard))
    if await number(connection, stands) != 1:
        return False
    if not await hosts.move(
        connection, values["host_id"], HostEvent.PROVEN_OFF, why, values["issued_at"]
    ):
        return False
    await inserted(connection, death_certificate, values | {"state": "valid", "valid": 1})
    return True


@prebuilt
def _newest_outcome(host_id: UUID, epoch: int, /) -> sa.Select[Any]:
    query = sa.select(incident.c.outcome).where(
        incident.c.host_id == host_id, incident.c.epoch == epoch
    )
    return query.order_by(incident.c.id.desc()).limit(1)


async def was_cancelled(connection: AsyncConnection, host_id: UUID, epoch: int) -> bool:
    """Whether the newest incident of a host's epoch was cancelled."""
    newest = await one(connection, _newest_outcome(host_id, epoch))
    return newest is not None and newest["outcome"] == "cancelled"


@prebuilt
def _valid_certificate(host_id: UUID, epoch: int, /) -> sa.Select[Any]:
    return sa.select(death_certificate).where(
        death_certificate.c.host_id == host_id,
        death_certificate.c.epoch == epoch,
        death_certificate.c.valid == 1,
    )


async def valid_certificate(connection: AsyncConnection, host_id: UUID, epoch: int) -> Row | None:
    """The valid certificate of a host's epoch, or None."""
    return await one(connection, _valid_certificate(host_id, epoch))


async def certificates_of(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Certificates of an incident, oldest first."""
    query = sa.select(death_certificate).where(death_certificate.c.incident_id == incident_id)
    return await many(connection, query.order_by(death_certificate.c.issued_at))


async def void_certificate(
    connection: AsyncConnection, host_id: UUID, epoch: int, reason: str, now: datetime
) -> bool:
    """Void the valid certificate of a host's epoch; no start under it can commit afterwards."""
    query = death_certificate.update().where(
        death_certificate.c.host_id == host_id,
        death_certificate.c.epoch == epoch,
        death_certificate.c.valid == 1,
    )
    values = {"state": "void", "valid": None, "voided_at": now, "void_reason": reason[:1024]}
    return await changed(connection, query.values(**values)) == 1


@prebuilt
def _runs_of(incident_id: UUID, /) -> sa.Select[Any]:
    query = sa.select(vm_run).where(vm_run.c.incident_id == incident_id)
    return query.order_by(vm_run.c.created_at, vm_run.c.id)


async def runs_of(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Runs that an incident started elsewhere, oldest first."""
    return await many(connection, _runs_of(incident_id))


@prebuilt
def _runs_lost(incident_id: UUID, /) -> sa.Select[Any]:
    query = (
        sa.select(vm_run)
        .join(death_certificate, death_certificate.c.id == vm_run.c.lost_certificate_id)
        .where(death_certificate.c.incident_id == incident_id, sa.not_(_counts_elsewhere()))
    )
    return query.order_by(vm_run.c.vm_id)


def _counts_elsewhere() -> sa.ColumnElement[bool]:
    """Of a VM that was being moved between two hosts which died: the later proof has it."""
    twin, proof = vm_run.alias("twin"), death_certificate.alias("proof")
    return sa.exists().where(
        twin.c.vm_id == vm_run.c.vm_id,
        twin.c.ended_at == vm_run.c.ended_at,
        proof.c.id == twin.c.lost_certificate_id,
        sa.or_(
            proof.c.issued_at > death_certificate.c.issued_at,
            sa.and_(
                proof.c.issued_at == death_certificate.c.issued_at,
                proof.c.id > death_certificate.c.id,
            ),
        ),
    )


async def runs_lost(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Runs that an incident's certificates declared lost, by VM; each counts in one incident."""
    return await many(connection, _runs_lost(incident_id))

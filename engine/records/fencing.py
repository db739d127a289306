"""Rows of fences, evidence and certificates, as the steps of a fence keep them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.fencing import CertifyOrder, FenceStep
from domain.certificates import digest_of
from domain.errors import Refused
from domain.explain import explain_proof
from domain.grades import Grade
from domain.inventory import CONFIRMATION, FenceDevice, PowerReading
from domain.orders import Certificate, Evidence
from domain.proofs import require_proofs
from domain.topology import given_up
from engine.clock import Clock, utc_now
from engine.records.explaining import note_explanations
from engine.refs import fence_device
from store import certificates, fence_claims, incidents, inventory, operations
from store.database import Database
from store.ids import new_id
from store.judged import Judged
from store.rows import Row


class FenceRecords:
    """Implements the ports of `activities.fencing` and the devices of `activities.hosts`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        """The host's power controllers, by name."""
        rows = await self._database.read(
            lambda c: inventory.listing(c, "fence_device", host_id=host_id)
        )
        return tuple(fence_device(row) for row in rows)

    async def given_up(self, incident_id: UUID) -> frozenset[str]:
        """Names of devices that have answered nothing: a person's word makes up for those."""
        facts = await self._database.read(lambda c: incidents.evidence_of(c, incident_id))
        return given_up((fact["device"], fact["verdict"]) for fact in facts)

    async def words(self, incident_id: UUID) -> int:
        """How often somebody has said that the incident's host is dead."""
        return len(await self._database.read(lambda c: incidents.words_of(c, incident_id)))

    async def words_known(self, operation_id: UUID) -> int:
        """The same, when this fence was decided on."""
        row = await self._database.read(lambda c: operations.get(c, operation_id))
        return int(((row or {}).get("params") or {}).get("words", 0))

    async def claim_fence(self, step: FenceStep) -> None:
        """Claim the right to cut power now; Refused (`FENCE_NOT_ALLOWED`) otherwise."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> bool:
            known = await _known(connection, step.operation_id)
            return await fence_claims.claim_fence(
                connection,
                step.host.host_id,
                step.host.epoch,
                step.operation_id,
                known=known,
                now=now,
            )

        if not await self._database.write(work):
            raise Refused(
                "FENCE_NOT_ALLOWED",
                f"{step.host.name} may not be fenced now: it was heard again, a monitor that "
                "did not hear it is gone or has left it, the cluster is disarmed, the fence budget "
                "is spent, its recovery was cancelled, or the host has moved on",
                next_step="nothing was cut; the recovery judges anew",
                host=step.host.name,
                epoch=step.host.epoch,
            )

    async def add_evidence(self, step: FenceStep, evidence: tuple[Evidence, ...]) -> None:
        """Keep readings, whatever they say."""

        async def work(connection: AsyncConnection) -> None:
            for fact in evidence:
                row = _evidence_row(step, fact)
                await incidents.add_evidence(connection, row)
            for device in await inventory.listing(
                connection, "fence_device", host_id=step.host.host_id
            ):
                for fact in evidence:
                    if fact.device == device["name"]:
                        at = datetime.fromisoformat(fact.at)
                        await inventory.note_reading(connection, device["id"], fact.verdict, at)

        await self._database.write(work)

    async def certify(self, order: CertifyOrder) -> Certificate:
        """Issue the certificate or give the one there is.

        Refused when the evidence is not enough, or the host was heard.
        """
        require_proofs(order.host, order.evidence, order.proofs_required)
        return await self._database.write(lambda connection: self._certify(connection, order))

    async def _certify(self, connection: AsyncConnection, order: CertifyOrder) -> Certificate:
        host = order.host
        found = await incidents.valid_certificate(connection, host.host_id, host.epoch)
        if found is None:
            row = _certificate_row(order, await certificates.newest(connection), self._clock())
            heard = (await _known(connection, order.operation_id)).heard
            why = _why_dead(order.evidence)
            if not await incidents.issue_certificate(connection, row, heard=heard, why=why):
                await _refuse_ended(connection, order)
                raise Refused(
                    "SIGN_OF_LIFE",
                    f"{host.name} was heard again since its recovery judged it to be silent",
                    next_step="the recovery judges anew; if this repeats, check that the fence "
                    "device belongs to this host: it may be lying",
                    host=host.name,
                    epoch=host.epoch,
                )
            told = explain_proof(host.name, order.evidence, row["number"], why)
            subject = (host.host_id, host.name, told)
            now = self._clock()
            await note_explanations(connection, order.incident_id, [subject], now)
            await incidents.enter_phase(connection, order.incident_id, "place", now)
            found = row
        return Certificate(
            certificate_id=found["id"],
            host_id=host.host_id,
            epoch=host.epoch,
            evidence=found["evidence"],
        )


async def _refuse_ended(connection: AsyncConnection, order: CertifyOrder) -> None:
    """Refused once the incident is closed: nobody would start VMs under its certificate."""
    incident = await incidents.get(connection, order.incident_id)
    if incident is None or incident["open"] != 1:
        raise Refused(
            "INCIDENT_CLOSED",
            f"the recovery of {order.host.name} has ended: its death is not certified for it",
            next_step=f"`holdfast host show {order.host.name}` tells how it stands; if it is still "
            "silent, retry that recovery",
            host=order.host.name,
            epoch=order.host.epoch,
        )


async def _known(connection: AsyncConnection, operation_id: UUID) -> Judged:
    """What was known of the host when this fence was decided on: heard again, it is not dead."""
    row = await operations.get(connection, operation_id)
    params = (row or {}).get("params") or {}
    heard: dict[str, int] | None = params.get("heard")
    if heard is None:
        raise Refused("INCIDENT_NOT_JUDGED", f"no decision is recorded behind {operation_id}")
    return Judged(heard, tuple(params.get("eyes") or ()))


def _why_dead(evidence: tuple[Evidence, ...]) -> str:
    said = [fact for fact in evidence if fact.kind == CONFIRMATION]
    if said:
        return "; ".join(f"{fact.device} says that it is dead: {fact.detail}" for fact in said)
    if leases := [fact for fact in evidence if fact.grade is Grade.LEASE_EXPIRED]:
        return "; ".join(f"storage lease on {fact.device}: {fact.detail}" for fact in leases)
    off = [fact.device for fact in evidence if fact.verdict is PowerReading.OFF]
    return f"proven off by {', '.join(off)}"


def _evidence_row(step: FenceStep, fact: Evidence) -> Row:
    return {
        "id": new_id(),
        "incident_id": step.incident_id,
        "host_id": step.host.host_id,
        "epoch": step.host.epoch,
        "kind": fact.kind,
        "device": fact.device,
        "verdict": fact.verdict.value,
        "detail": fact.detail,
        "took_s": fact.took_s,
        "at": datetime.fromisoformat(fact.at),
    }


def _certificate_row(order: CertifyOrder, before: Row | None, now: datetime) -> Row:
    facts = [fact.model_dump(mode="json") for fact in order.evidence]
    host, previous = order.host, before["digest"] if before else None
    return {
        "id": new_id(),
        "host_id": host.host_id,
        "epoch": host.epoch,
        "incident_id": order.incident_id,
        "evidence": facts,
        "digest": digest_of(host.host_id, host.epoch, facts, previous),
        "number": 1 + ((before or {}).get("number") or 0),
        "previous": previous,
        "issued_at": now,
    }

"""Certificates on an expired storage lease, and the grade that each certificate is shown with."""

from typing import Any
from uuid import UUID

import pytest

from activities.fencing import CertifyOrder
from domain.certificates import digest_of
from domain.errors import Refused
from domain.grades import Grade
from domain.inventory import PowerReading, Silence
from domain.orders import Evidence, HostRef
from domain.proofs import lease_fact
from domain.storage_lease import LeaseReading, LeaseRecord, judge, watched
from engine.queries.certificates import VerifyCertificates
from engine.queries.incidents import ExplainIncident, GetIncident
from engine.views import IncidentView
from store.ids import new_id
from tests.store.engine_room import Engine
from tests.store.test_fence_records import OFF, certificate_order, dying, hear, step, word_of
from tests.store.world import START

pytestmark = pytest.mark.store

UNKNOWN = OFF.model_copy(update={"verdict": PowerReading.UNKNOWN})
KNOCK = Evidence(
    kind="libvirt_knock", device="h1", verdict=Silence.SILENT, took_s=0.5, at=START.isoformat()
)


def lease_of(host: HostRef, for_s: float = 300.0, **changes: Any) -> Evidence:
    """What the lease of a host says that was read as unchanged for so long."""
    fields = {"host_id": host.host_id, "epoch": host.epoch, "sequence": 7, "lease_s": 80.0}
    record = LeaseRecord(**(fields | {"watchdog_s": 60.0} | changes))
    times = [number * 5.0 for number in range(int(for_s // 5) + 1)]
    readings = [LeaseReading(began_s=t, ended_s=t, record=record, uncached=True) for t in times]
    finding = judge(record.host_id, record.epoch, watched(readings))
    return lease_fact(finding, "san1", START.isoformat(), for_s)


async def ordered(engine: Engine) -> CertifyOrder:
    """A death that only a lease proves: the controller says nothing, and nor does the door."""
    order = await certificate_order(engine, *await dying(engine))
    return order.model_copy(update={"evidence": (lease_of(order.host), UNKNOWN, KNOCK)})


async def shown(engine: Engine, incident_id: UUID) -> IncidentView:
    view: IncidentView = await engine.backend.run_query(GetIncident(incident_id=incident_id))
    return view


async def test_an_expired_lease_certifies_once_and_is_shown_with_its_grade(engine: Engine) -> None:
    order = await ordered(engine)
    issued = await engine.fences.certify(order)
    assert await engine.fences.certify(order) == issued
    assert issued.evidence == order.evidence
    assert (await engine.world.get("host", order.host.host_id))["state"] == "down"
    certificate = (await shown(engine, order.incident_id)).certificate
    assert certificate is not None
    assert (certificate.grade, certificate.grade_told) == (
        Grade.LEASE_EXPIRED,
        "storage lease expired, with an attested watchdog",
    )
    explained = await engine.backend.run_query(ExplainIncident(incident_id=order.incident_id))
    (proof,) = explained.decisions
    assert (proof.rule, proof.inputs["grade"]) == ("WATCHDOG_HAS_FIRED", certificate.grade_told)
    assert proof.why.startswith("storage lease on san1: the lease of 80 s was unchanged")
    assert (await engine.backend.run_query(VerifyCertificates())).whole


STRANGER = new_id()


@pytest.mark.parametrize(
    ("changes", "beside", "code"),
    [
        ({"host_id": STRANGER}, (KNOCK,), "LEASE_OF_ANOTHER"),
        ({"epoch": 2}, (KNOCK,), "LEASE_OF_ANOTHER"),
        ({"watchdog_s": None}, (KNOCK,), "PROOFS_MISSING"),
        ({"for_s": 200.0}, (KNOCK,), "PROOFS_MISSING"),
        ({}, (), "NOT_KNOCKED"),
        ({}, (OFF.model_copy(update={"verdict": PowerReading.ON}), KNOCK), "SIGN_OF_LIFE"),
    ],
)
async def test_a_lease_that_proves_nothing_of_this_host_certifies_nothing(
    engine: Engine, changes: Any, beside: tuple[Evidence, ...], code: str
) -> None:
    order = await ordered(engine)
    evidence = (lease_of(order.host, **changes), *beside)
    with pytest.raises(Refused, match=code):
        await engine.fences.certify(order.model_copy(update={"evidence": evidence}))
    assert await engine.rows("death_certificate") == []
    assert (await engine.world.get("host", order.host.host_id))["state"] == "non_responsive"


async def test_a_host_that_was_heard_is_not_dead_whatever_its_lease_says(engine: Engine) -> None:
    order = await ordered(engine)
    await hear(engine, order.host.host_id)
    with pytest.raises(Refused, match="SIGN_OF_LIFE"):
        await engine.fences.certify(order)
    assert await engine.rows("death_certificate") == []


@pytest.mark.parametrize("grade", [Grade.POWER_READ_OFF, Grade.WORD])
async def test_the_grade_of_a_certificate_is_told_and_stands_in_no_row(
    engine: Engine, grade: Grade
) -> None:
    order = await certificate_order(engine, *await dying(engine))
    if grade is Grade.WORD:
        order = order.model_copy(update={"evidence": (word_of(engine), UNKNOWN, KNOCK)})
    await engine.fences.certify(order)
    certificate = (await shown(engine, order.incident_id)).certificate
    assert certificate is not None
    assert (certificate.grade, certificate.grade_told) == (grade, grade.told)
    (row,) = await engine.rows("death_certificate")
    assert {key for fact in row["evidence"] for key in fact} == {
        *("kind", "device", "verdict", "took_s", "at")
    }
    assert row["digest"] == digest_of(row["host_id"], 1, row["evidence"], None)


async def test_each_fact_of_an_incident_is_shown_with_its_grade(engine: Engine) -> None:
    host, incident = await dying(engine)
    ref = await engine.ref(host)
    supporting = lease_of(ref, watchdog_s=None)
    facts = (OFF, lease_of(ref), supporting, word_of(engine), KNOCK)
    await engine.fences.add_evidence(await step(engine, host, incident), facts)
    kept = (await shown(engine, incident)).evidence
    assert {(fact.kind, fact.verdict): fact.grade for fact in kept} == {
        ("power_reading", "off"): Grade.POWER_READ_OFF,
        ("storage_lease", "proof"): Grade.LEASE_EXPIRED,
        ("storage_lease", "supporting"): None,
        ("confirmation", "dead"): Grade.WORD,
        ("libvirt_knock", "silent"): None,
    }
    assert supporting.detail in [fact.detail for fact in kept]


async def test_a_certificate_that_somebody_has_torn_is_still_shown(engine: Engine) -> None:
    order = await ordered(engine)
    issued = await engine.fences.certify(order)
    await engine.world.put("death_certificate", issued.certificate_id, evidence=[{"device": "b"}])
    certificate = (await shown(engine, order.incident_id)).certificate
    assert certificate is not None
    assert (certificate.grade, certificate.grade_told) == (None, None)

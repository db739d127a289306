"""What a death certificate may be issued on, and what is refused."""

from typing import Any

import pytest

from domain.errors import Refused
from domain.inventory import CONFIRMATION, Confirmation, PowerReading, Silence
from domain.orders import Evidence, HostRef
from domain.proofs import lease_fact, require_proofs
from domain.storage_lease import LeaseCount, LeaseReading, LeaseRecord, LeaseVerdict, judge, watched
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

AT = "2026-11-28T10:00:00+00:00"
HOST = HostRef(host_id=id_of("h1"), name="h1", uri="test:///h1", epoch=3)


def fact(device: str, verdict: Any, **fields: Any) -> Evidence:
    return Evidence(device=device, verdict=verdict, took_s=0.1, at=AT, **fields)


OFF, ON = fact("bmc", PowerReading.OFF), fact("bmc", PowerReading.ON)
UNKNOWN = fact("bmc", PowerReading.UNKNOWN)
WORD = fact("ann", Confirmation.DEAD, kind=CONFIRMATION)
KNOCK = fact("h1", Silence.SILENT, kind="libvirt_knock")


def lease(for_s: float = 1000.0, **changes: Any) -> Evidence:
    """What a lease says that was read as unchanged for so long."""
    fields = {"host_id": HOST.host_id, "epoch": 3, "sequence": 7, "lease_s": 80.0}
    record = LeaseRecord(**(fields | {"watchdog_s": 60.0} | changes))
    times = [number * 5.0 for number in range(int(for_s // 5) + 1)]
    readings = [LeaseReading(began_s=t, ended_s=t, record=record, uncached=True) for t in times]
    return lease_fact(judge(record.host_id, record.epoch, watched(readings)), "san1", AT, for_s)


def counted(**changes: Any) -> Evidence:
    """One that was said to be proof, with other numbers."""
    said = lease()
    assert said.lease is not None
    return said.model_copy(update={"lease": said.lease.model_copy(update=changes)})


PDU_A, PDU_B = (fact(name, PowerReading.OFF, level=2) for name in ("pdu-a", "pdu-b"))
PDU_MUTE = fact("pdu-b", PowerReading.UNKNOWN, level=2)


@pytest.mark.parametrize(
    ("evidence", "proofs", "code"),
    [
        ((OFF, KNOCK), 1, None),
        ((OFF,), 1, None),
        ((WORD, UNKNOWN, KNOCK), 1, None),
        ((WORD, KNOCK), 2, None),
        ((), 1, "PROOFS_MISSING"),
        ((UNKNOWN, KNOCK), 1, "PROOFS_MISSING"),
        ((OFF, OFF, KNOCK), 2, "PROOFS_MISSING"),
        ((OFF, PDU_A, KNOCK), 2, None),
        ((lease(), UNKNOWN, KNOCK), 1, None),
        ((lease(), KNOCK), 1, None),
        ((lease(), UNKNOWN, KNOCK), 2, "PROOFS_MISSING"),
        ((lease(), lease(), KNOCK), 2, "PROOFS_MISSING"),
        ((lease(), OFF, KNOCK), 2, None),
        ((lease(), PDU_A, PDU_MUTE, KNOCK), 2, "PROOFS_MISSING"),
        ((lease(), PDU_A, PDU_B, KNOCK), 3, None),
        ((lease(), UNKNOWN), 1, "NOT_KNOCKED"),
        ((lease(), fact("h2", Silence.SILENT, kind="libvirt_knock")), 1, "NOT_KNOCKED"),
        ((lease(), ON, KNOCK), 1, "SIGN_OF_LIFE"),
        ((lease(), ON, PDU_A, PDU_B, KNOCK), 1, "SIGN_OF_LIFE"),
        ((lease(200), KNOCK), 1, "PROOFS_MISSING"),
        ((lease(watchdog_s=None), KNOCK), 1, "PROOFS_MISSING"),
        ((lease(5), KNOCK), 1, "PROOFS_MISSING"),
        ((lease(watchdog_s=None), WORD, KNOCK), 1, None),
        ((lease(host_id=id_of("h2")), KNOCK), 1, "LEASE_OF_ANOTHER"),
        ((lease(epoch=2), KNOCK), 1, "LEASE_OF_ANOTHER"),
        ((lease(epoch=2), OFF, KNOCK), 1, "LEASE_OF_ANOTHER"),
        ((lease(epoch=2), WORD, KNOCK), 1, "LEASE_OF_ANOTHER"),
        ((counted(watchdog_s=None), KNOCK), 1, "LEASE_PROVES_NOTHING"),
        ((counted(unchanged_s=200.0), KNOCK), 1, "LEASE_PROVES_NOTHING"),
        ((counted(lease_s=900.0), KNOCK), 1, "LEASE_PROVES_NOTHING"),
        ((lease().model_copy(update={"lease": None}), KNOCK), 1, "LEASE_PROVES_NOTHING"),
    ],
)
def test_only_what_proves_a_death_certifies_it(
    evidence: tuple[Evidence, ...], proofs: int, code: str | None
) -> None:
    if code is None:
        return require_proofs(HOST, evidence, proofs)
    with pytest.raises(Refused) as refusal:
        require_proofs(HOST, evidence, proofs)
    assert refusal.value.code == code
    assert refusal.value.next_step
    assert refusal.value.context["host"] == "h1"
    return None


def test_a_lease_in_evidence_keeps_its_numbers_through_json() -> None:
    said = lease()
    assert said.verdict is LeaseVerdict.PROOF
    assert isinstance(said.lease, LeaseCount)
    assert Evidence.model_validate_json(said.model_dump_json()) == said


def test_a_refusal_of_a_lease_says_with_which_numbers() -> None:
    with pytest.raises(Refused, match=r"was unchanged for 200\.0 s of 257\.7 s"):
        require_proofs(HOST, (counted(unchanged_s=200.0), KNOCK), 1)
    with pytest.raises(Refused, match="attests no independent watchdog"):
        require_proofs(HOST, (counted(watchdog_s=None), KNOCK), 1)

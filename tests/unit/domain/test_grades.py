"""The ladder of evidence: its order, and what each fact is worth."""

from itertools import pairwise
from typing import Any

import pytest

from domain.grades import Grade, grade_of, grade_of_row, weakest
from domain.inventory import CONFIRMATION, Confirmation, PowerReading, Silence
from domain.orders import Evidence
from domain.storage_lease import STORAGE_LEASE, LeaseVerdict

pytestmark = pytest.mark.unit

OFF, LEASE, WORD = Grade.POWER_READ_OFF, Grade.LEASE_EXPIRED, Grade.WORD


def test_power_read_off_stands_above_a_lease_and_a_lease_above_a_word() -> None:
    assert list(Grade) == [OFF, LEASE, WORD]
    for higher, lower in pairwise(Grade):
        assert higher > lower
        assert higher >= lower
        assert lower < higher
        assert lower <= higher
        assert [higher < lower, higher <= lower, lower > higher, lower >= higher] == [False] * 4
    for grade in Grade:
        same = Grade(grade.value)
        assert [grade <= same, grade >= same, grade < same, grade > same] == [True] * 2 + [
            False
        ] * 2
    assert (max(Grade), min(Grade), sorted(Grade)) == (OFF, WORD, [WORD, LEASE, OFF])


def test_a_grade_is_not_compared_with_what_is_none() -> None:
    with pytest.raises(ValueError, match="abc"):
        assert Grade.WORD < "abc"


@pytest.mark.parametrize(
    ("kind", "verdict", "grade"),
    [
        ("power_reading", PowerReading.OFF, OFF),
        ("power_reading", PowerReading.ON, None),
        ("power_reading", PowerReading.UNKNOWN, None),
        ("libvirt_knock", Silence.SILENT, None),
        (STORAGE_LEASE, LeaseVerdict.PROOF, LEASE),
        (STORAGE_LEASE, LeaseVerdict.SUPPORTING, None),
        (STORAGE_LEASE, LeaseVerdict.NONE, None),
        (CONFIRMATION, Confirmation.DEAD, WORD),
        (CONFIRMATION, PowerReading.OFF, None),
        ("power_reading", Confirmation.DEAD, None),
    ],
)
def test_each_fact_tells_its_grade_and_none_writes_it(
    kind: str, verdict: Any, grade: Grade | None
) -> None:
    fact = Evidence(kind=kind, device="x", verdict=verdict, took_s=0.1, at="2026-01-01T00:00:00Z")
    assert fact.grade is grade
    assert grade_of(kind, verdict) is grade
    kept = fact.model_dump(mode="json")
    assert grade_of_row(kept) is grade
    assert Evidence(**kept) == fact
    assert sorted(kept) == ["at", "device", "kind", "took_s", "verdict"]


def test_a_certificate_is_as_strong_as_the_weakest_proof_that_it_names() -> None:
    assert weakest([]) is None
    assert weakest([None, OFF, None]) is OFF
    assert weakest([OFF, LEASE]) is LEASE
    assert weakest([LEASE, WORD, OFF]) is WORD


def test_what_is_no_fact_has_no_grade() -> None:
    assert grade_of_row({"device": "bmc"}) is None
    assert grade_of_row({"kind": "of_tomorrow", "verdict": "off"}) is None


def test_every_grade_is_told_in_words() -> None:
    assert [grade.told for grade in Grade] == [
        "power read back off",
        "storage lease expired, with an attested watchdog",
        "a person's word",
    ]

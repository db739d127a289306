"""The ladder of evidence: how strong a proof of a host's death is.

A grade is told from what a fact is and says, whenever it is read; it is never written. So it means
the same on certificates from before there were grades, and their digests stay what they are.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from domain.inventory import CONFIRMATION, Confirmation, PowerReading
from domain.storage_lease import STORAGE_LEASE, LeaseVerdict

POWER_READING = "power_reading"
"""The kind of evidence that a fence device gives."""


class Grade(StrEnum):
    """What a proof rests on, the strongest first; a stronger one is greater."""

    POWER_READ_OFF = "power_read_off"
    LEASE_EXPIRED = "lease_expired"
    WORD = "word"

    @property
    def told(self) -> str:
        """As a person reads it."""
        return TOLD[self]

    # A string would compare by its letters.
    def __lt__(self, other: str) -> bool:
        return _rung(self) > _rung(Grade(other))

    def __le__(self, other: str) -> bool:
        return _rung(self) >= _rung(Grade(other))

    def __gt__(self, other: str) -> bool:
        return _rung(self) < _rung(Grade(other))

    def __ge__(self, other: str) -> bool:
        return _rung(self) <= _rung(Grade(other))


TOLD = {
    Grade.POWER_READ_OFF: "power read back off",
    Grade.LEASE_EXPIRED: "storage lease expired, with an attested watchdog",
    Grade.WORD: "a person's word",
}

PROOFS = {
    (POWER_READING, PowerReading.OFF.value): Grade.POWER_READ_OFF,
    (STORAGE_LEASE, LeaseVerdict.PROOF.value): Grade.LEASE_EXPIRED,
    (CONFIRMATION, Confirmation.DEAD.value): Grade.WORD,
}


def grade_of(kind: str, verdict: str) -> Grade | None:
    """The grade of one fact; None: it proves nothing by itself."""
    return PROOFS.get((kind, str(verdict)))


def grade_of_row(fact: Mapping[str, Any]) -> Grade | None:
    """The same of a fact as a certificate keeps it; what somebody has torn has no grade."""
    return grade_of(fact.get("kind", ""), fact.get("verdict", ""))


def weakest(grades: Iterable[Grade | None]) -> Grade | None:
    """The grade of a certificate, given those of its facts; None where no fact has one.

    A lower rung is asked only where a higher one did not prove it, so a certificate that names one
    rests on it, whatever single devices have said beside it.
    """
    return min((grade for grade in grades if grade is not None), default=None)


def _rung(grade: Grade) -> int:
    return list(Grade).index(grade)

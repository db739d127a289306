"""What a test of a host's fence devices says, before one of them is needed.

A device that answers is not proven to cut *this* host: two that were swapped answer as well. Where
both tell, the UUID of the machine that a BMC manages is compared with that of the host it is
configured for; and a device that reads off while the host answers is wrong, whoever tells what.
"""

from enum import StrEnum
from uuid import UUID

from domain.base import Frozen
from domain.inventory import PowerReading


class Identity(StrEnum):
    """Whether a device manages the machine that the host is."""

    SAME = "same"
    OTHER = "other"
    UNTOLD = "untold"  # the device or the host does not say which machine it is


class DeviceCheck(Frozen):
    """What one device said when it was tested."""

    device_id: UUID
    device: str
    reading: PowerReading
    took_s: float
    identity: Identity | None = None  # None: only its status was asked for
    at: str  # UTC, RFC 3339

    @property
    def answers(self) -> bool:
        """Whether it said anything."""
        return self.reading is not PowerReading.UNKNOWN


def identity(managed: tuple[UUID, ...], host: UUID | None) -> Identity:
    """Compare the machine that a device manages, in any byte order, with what the host says."""
    if not managed or host is None:
        return Identity.UNTOLD
    return Identity.SAME if host in managed else Identity.OTHER


def wrong_with(check: DeviceCheck, *, host_answers: bool) -> str | None:
    """Why a device could not be relied on, or None."""
    if not check.answers:
        return f"{check.device} does not answer"
    if check.identity is Identity.OTHER:
        return f"{check.device} manages another machine than this host"
    if host_answers and check.reading is PowerReading.OFF:
        return f"{check.device} reads off though the host answers"
    return None

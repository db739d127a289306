"""What people read about what a host has been asked: its samples, guests and fence devices."""

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.base import Frozen


class HostSampleView(Frozen):
    """One answered poll of one host."""

    at: datetime
    memory_total_mib: int
    memory_free_mib: int
    cpus: int
    took_s: float
    guests: list[dict[str, Any]]


class ForeignGuestView(Frozen):
    """One guest that runs on a host and is none of ours. `memory_mib` is what it has now."""

    guest_id: UUID
    name: str
    state: str
    memory_mib: int


class ForeignGuestsView(Frozen):
    """What a host ran that is none of ours when it last answered; `at` None: it never has."""

    host_id: UUID
    at: datetime | None
    guests: tuple[ForeignGuestView, ...]


class FenceDeviceView(Frozen):
    """One power controller, without its secrets."""

    id: UUID
    host_id: UUID
    host_name: str
    name: str
    agent: str
    options: dict[str, str]
    deadline_s: float
    level: int
    delay_s: float
    retries: int
    shares_power: bool
    host_budget_s: float
    last_reading: str | None
    last_read_at: datetime | None
    last_tested_at: datetime | None
    test_reading: str | None
    test_took_s: float | None
    test_identity: str | None
    silent_since: datetime | None
    rehearsal: str | None  # cut, proven, other or failed: `domain.rehearsal`
    rehearsed_at: datetime | None
    version: int

"""What people and programs read of a cluster: its switch, its timing, its limits."""

from datetime import datetime
from uuid import UUID

from domain.base import Frozen


class ClusterView(Frozen):
    """One cluster."""

    id: UUID
    name: str
    profile: str
    virt_type: str
    armed: bool
    disarm_mode: str | None = None
    disarmed_by: str | None = None
    disarm_reason: str | None = None
    disarmed_at: datetime | None = None
    predicted_power_cut_s: float
    predicted_isolation_s: float
    fence_limit_s: float
    fence_window_s: int = 300
    fences_max: int = 1
    fences_percent: int | None = None
    rack_fences_max: int | None = None
    rack_fences_percent: int | None = None
    site_fences_max: int | None = None
    site_fences_percent: int | None = None
    starts_per_host: int = 8
    make_room: str = "off"
    make_room_max: int = 10
    failback_after_s: int = 600
    soft_step: bool = True
    vcpu_overcommit: float | None = None
    memory_overcommit: float = 1.0
    version: int

"""The shapes of what anybody may read; no field of them may hold anything of the inventory."""

from domain.base import Frozen


class HealthView(Frozen):
    """How the engine does, given that its database answers.

    revision         of the database's tables; `revision_expected` is what this engine needs
    starts_wait_s    for how long something has been waiting to be told to Temporal
    events_wait_s    for how long an event has been waiting for its number
    """

    status: str  # ok, degraded
    revision: str | None
    revision_expected: str | None
    starts_wait_s: float
    events_wait_s: float


class VersionView(Frozen):
    """Which version this is."""

    version: str
    api: str


class ActionInfo(Frozen):
    """What one kind of action declares.

    durable   it runs on as a workflow after it was accepted
    """

    kind: str
    permission: str
    priority: int
    durable: bool
    idempotent: bool
    pausable: bool
    retryable: bool


class CapabilitiesView(Frozen):
    """What this engine can do."""

    actions: tuple[ActionInfo, ...]
    features: tuple[str, ...]
    page_limit_max: int
    lock_wait_max_s: float


class AuthMethodView(Frozen):
    """One way to say who one is."""

    name: str
    scheme: str
    how: str


class TimingProfileView(Frozen):
    """One timing profile and the recovery times it predicts, in seconds."""

    name: str
    poll_s: float
    poll_deadline_s: float
    non_responsive_after_s: float
    proofs_required: int
    predicted_power_cut_s: float
    predicted_isolation_s: float

"""What anybody may ask: how the engine does, what it is and what it can do; nothing of what it has.

No answer here may depend on the inventory, on names, addresses or principals. All but health are
answered without the database, so that an engine which lost it can still say what it is.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.profiles import TIMINGS, predict
from domain.version import API, VERSION
from engine.acceptance import LOCK_WAIT_MAX_S
from engine.actions.base import Action
from engine.queries.base import FixedQuery, Query, QueryParams
from engine.queries.pages import LIMIT_MAX
from engine.views_public import (
    ActionInfo,
    AuthMethodView,
    CapabilitiesView,
    HealthView,
    TimingProfileView,
    VersionView,
)
from store import health, migrate

LATE_S = 30.0
"""Waiting for the relay from which on the engine counts as degraded. Lower: a restart of Temporal
is reported. Higher: a dead relay is noticed later."""

FEATURES = ("audit", "batches", "dry_run", "idempotency_keys", "lock_wait", "priorities")


class Health(QueryParams):
    """How the engine does."""


class HealthQuery(Query[Health, HealthView]):
    """Whether the database answers, fits this engine, and is followed by a relay."""

    params = Health
    public = True

    async def answer(
        self, connection: AsyncConnection, params: Health, now: datetime
    ) -> HealthView:
        """`degraded`: it answers, and something lags behind or does not fit."""
        found, expected = await migrate.revision(connection), expected_revision()
        untold = _age_s(await health.oldest_untold(connection), now)
        unnumbered = _age_s(await health.oldest_unnumbered(connection), now)
        well = found == expected and max(untold, unnumbered) < LATE_S
        return HealthView(
            status="ok" if well else "degraded",
            revision=found,
            revision_expected=expected,
            starts_wait_s=untold,
            events_wait_s=unnumbered,
        )


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else round(max(0.0, (now - since).total_seconds()), 3)


@cache
def expected_revision() -> str | None:
    """The revision that this engine's tables have; reads the migrations' files once."""
    return migrate.newest()


class Version(QueryParams):
    """Which version this is."""


class VersionQuery(FixedQuery[Version, VersionView]):
    """The version of the engine and of its API."""

    params = Version
    public = True

    def tell(self, params: Version) -> VersionView:
        """Never fails."""
        return VersionView(version=VERSION, api=API)


class Capabilities(QueryParams):
    """What this engine can do."""


class CapabilitiesQuery(FixedQuery[Capabilities, CapabilitiesView]):
    """Its actions with what they declare, its features and limits."""

    params = Capabilities
    public = True

    def __init__(self, actions: Iterable[Action[Any, Any]]) -> None:
        infos = [_info(action) for action in actions]
        self._view = CapabilitiesView(
            actions=tuple(sorted(infos, key=lambda info: info.kind)),
            features=FEATURES,
            page_limit_max=LIMIT_MAX,
            lock_wait_max_s=LOCK_WAIT_MAX_S,
        )

    def tell(self, params: Capabilities) -> CapabilitiesView:
        """Never fails."""
        return self._view


def _info(action: Action[Any, Any]) -> ActionInfo:
    return ActionInfo(
        kind=action.kind,
        permission=action.permission.value,
        priority=int(action.priority),
        durable=action.workflow is not None,
        idempotent=action.idempotent,
        pausable=action.pausable,
        retryable=action.retryable,
    )


class AuthMethods(QueryParams):
    """How one may say who one is."""


class AuthMethodsQuery(FixedQuery[AuthMethods, tuple[AuthMethodView, ...]]):
    """Each way to authenticate."""

    params = AuthMethods
    public = True

    def tell(self, params: AuthMethods) -> tuple[AuthMethodView, ...]:
        """Never fails."""
        how = "send `Authorization: Bearer TOKEN`; the engine's folder holds the token"
        return (AuthMethodView(name="token", scheme="bearer", how=how),)


class TimingProfiles(QueryParams):
    """The timing profiles that a cluster can have."""


class TimingProfilesQuery(FixedQuery[TimingProfiles, tuple[TimingProfileView, ...]]):
    """Each profile with the recovery times it predicts."""

    params = TimingProfiles
    public = True

    def tell(self, params: TimingProfiles) -> tuple[TimingProfileView, ...]:
        """Never fails."""
        return tuple(
            TimingProfileView(
                name=profile.value,
                **timing.model_dump(),
                predicted_power_cut_s=predict(timing).power_cut_s,
                predicted_isolation_s=predict(timing).isolation_s,
            )
            for profile, timing in TIMINGS.items()
        )

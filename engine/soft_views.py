"""SSH access and soft steps as people see them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.soft_step import TRIES_MAX, WINDOW_S, next_try_in_s
from domain.ssh_access import fingerprint
from store import soft_steps
from store.rows import Row

MISSING = "guests_missing"


class SshAccessView(Frozen):
    """How a host is reached over SSH. Its private key is never shown."""

    user: str
    port: int
    host_key: str
    fingerprint: str


class OneSoftStepView(Frozen):
    """One restart of a host's libvirtd over SSH."""

    operation_id: UUID
    at: datetime
    automatic: bool
    outcome: str | None  # answered, failed, cancelled, guests_missing; None: under way
    detail: str
    ended_at: datetime | None


class SoftStepView(OneSoftStepView):
    """The restarts of a host's libvirtd in the last hour: the newest, and how many.

    tries        of the engine's own; it makes at most `tries_max` in an hour
    next_try_at  before which it makes none; None: it may now
    """

    tries: int
    tries_max: int = TRIES_MAX
    next_try_at: datetime | None


class HostSshView(Frozen):
    """How a host is reached over SSH, and what was done so."""

    access: SshAccessView | None
    soft_step: SoftStepView | None


class Tries(NamedTuple):
    """The engine's own soft steps on a host, as the decision wants them."""

    ago_s: tuple[float, ...]
    lost_guests: bool


def tries_of(steps: Sequence[Row], now: datetime) -> Tries:
    """From rows of the last window, newest first."""
    ago_s = tuple((now - s["claimed_at"]).total_seconds() for s in steps if s["automatic"])
    return Tries(ago_s, bool(steps) and steps[0]["outcome"] == MISSING)


async def ssh_of(connection: AsyncConnection, host_id: UUID, now: datetime) -> HostSshView:
    """Access and soft steps of a host."""
    known = await soft_steps.accesses(connection, [host_id])
    began = now - timedelta(seconds=WINDOW_S)
    steps = await soft_steps.since(connection, host_id, began)
    return HostSshView(access=_access(known.get(host_id)), soft_step=_step(steps, now))


async def soft_before(
    connection: AsyncConnection, host_id: UUID, epoch: int, at: datetime
) -> tuple[OneSoftStepView, ...]:
    """What was tried on a host in the hour before it failed, oldest first."""
    began = at - timedelta(seconds=WINDOW_S)
    steps = await soft_steps.since(connection, host_id, began)
    mine = (step for step in reversed(steps) if step["epoch"] == epoch)
    return tuple(OneSoftStepView(**_one(step)) for step in mine if step["claimed_at"] <= at)


def _one(step: Row) -> Row:
    same = ("operation_id", "automatic", "outcome", "detail", "ended_at")
    return {name: step[name] for name in same} | {"at": step["claimed_at"]}


def _access(row: Row | None) -> SshAccessView | None:
    if row is None:
        return None
    shown = {name: row[name] for name in ("user", "port", "host_key")}
    return SshAccessView(**shown, fingerprint=fingerprint(row["host_key"]))


def _step(steps: Sequence[Row], now: datetime) -> SoftStepView | None:
    if not steps:
        return None
    last, tries = steps[0], tries_of(steps, now)
    wait_s = next_try_in_s(tries.ago_s)
    return SoftStepView(
        **_one(last),
        tries=len(tries.ago_s),
        next_try_at=now + timedelta(seconds=wait_s) if wait_s > 0 else None,
    )

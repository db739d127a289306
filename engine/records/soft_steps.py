"""Rows of soft steps, as the steps and the monitors keep them."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.soft_steps import Claimed, EndStep, Guest, SoftStep
from domain.errors import Conflict
from domain.readings import ALIVE_STATES, DomainState
from domain.soft_step import WINDOW_S
from domain.ssh_access import SshAccess, address_of
from engine.clock import Clock, utc_now
from store import observations, plumbing, soft_steps
from store.database import Database
from store.ids import new_id
from store.rows import Row

CLAIMED, ENDED = "host.soft_step", "host.soft_step_ended"
"""Events: libvirtd is being restarted over SSH; how that ended."""

LOOK_BACK = timedelta(hours=1)
"""How long samples are kept: who was alive when the host last answered."""


class SoftStepRecords:
    """Implements the port of `activities.soft_steps`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, step: SoftStep) -> Claimed:
        """The right to restart that libvirtd now; Conflict (`SOFT_STEP_NOT_ALLOWED`) otherwise."""
        now, why = self._clock(), _why(step)
        began = now - timedelta(seconds=WINDOW_S)

        async def work(connection: AsyncConnection) -> Claimed | None:
            row = _row(step, why)
            if await soft_steps.of_operation(connection, step.operation_id, step.attempt) is None:
                window = None if step.hung is None else began
                if not await soft_steps.claim(connection, row, window_began=window, now=now):
                    return None
                await plumbing.append_event(connection, _event(step, CLAIMED, now, why=why))
            access = await _access(connection, step)
            if access is None:
                return None
            guests = await _guests(connection, step, now)
            return Claimed(access=access, guests=guests, why=why)

        claimed = await self._database.write(work)
        if claimed is None:
            raise _not_allowed(step)
        return claimed

    async def ask_again(self, step: SoftStep) -> None:
        """Conflict (`SOFT_STEP_NOT_ALLOWED`) once a claimed step has ended, or a VM is moving."""
        key = (step.operation_id, step.attempt)
        if not await self._database.read(lambda c: soft_steps.still(c, *key)):
            raise _not_allowed(step)

    async def end(self, end: EndStep) -> None:
        """Record how it ended, with an event; an end that is there already stays."""
        now, step = self._clock(), end.step

        async def work(connection: AsyncConnection) -> None:
            key = (step.operation_id, step.attempt)
            row = await soft_steps.end(connection, *key, end.outcome, end.detail, now)
            if row is None:
                return
            told = {"outcome": end.outcome, "detail": end.detail[:1024]}
            await plumbing.append_event(connection, _event(step, ENDED, now, **told))
            why = f"its libvirtd hangs; the restart over SSH: {end.outcome}, {end.detail}"
            await soft_steps.tell(connection, step.host.host_id, step.host.epoch, why)

        await self._database.write(work)

    async def refused(self, host_id: UUID, epoch: int, why: str) -> None:
        """Say on a host that hangs why its libvirtd is not restarted by the engine."""
        await self._database.write(lambda c: soft_steps.tell(c, host_id, epoch, why))


async def _guests(connection: AsyncConnection, step: SoftStep, now: datetime) -> tuple[Guest, ...]:
    """Who was alive when the host last answered; nobody where that is too long ago."""
    rows = await observations.samples(connection, step.host.host_id, now - LOOK_BACK, 1)
    seen = rows[0]["guests"] if rows else ()
    alive = (guest for guest in seen if DomainState(guest["state"]) in ALIVE_STATES)
    return tuple(Guest(vm_id=UUID(guest["vm_id"]), name=guest["name"]) for guest in alive)


async def _access(connection: AsyncConnection, step: SoftStep) -> SshAccess | None:
    row = await soft_steps.access_of(connection, step.host.host_id)
    address = address_of(step.host.uri)
    if row is None or address is None:
        return None
    return SshAccess(
        host_id=step.host.host_id,
        address=address,
        user=row["user"],
        port=row["port"],
        host_key=row["host_key"],
    )


def _not_allowed(step: SoftStep) -> Conflict:
    return Conflict(
        "SOFT_STEP_NOT_ALLOWED",
        f"{step.host.name} has changed since this was asked for: it answers again, is in"
        " other hands, a VM is moving, or automatic action was switched off",
        next_step="look at the host: `holdfast host show`; if it still hangs, ask again",
        host=step.host.name,
    )


def _why(step: SoftStep) -> str:
    if step.hung is None:
        return "a person asked for it"
    by = step.hung.reported_by
    return f"libvirt was silent for {step.hung.silent_s:.0f} s behind an open door, says {by}"


def _row(step: SoftStep, why: str) -> Row:
    return {
        "host_id": step.host.host_id,
        "epoch": step.host.epoch,
        "operation_id": step.operation_id,
        "attempt": step.attempt,
        "detail": why,
    }


def _event(step: SoftStep, kind: str, now: datetime, **data: str) -> Row:
    return {
        "id": new_id(),
        "type": kind,
        "subject_type": "host",
        "subject_id": step.host.host_id,
        "principal": "engine",
        "correlation_id": f"{step.host.host_id.hex}:{step.host.epoch}",
        "operation_id": step.operation_id,
        "data": {"host": step.host.name, "automatic": step.hung is not None, **data},
        "at": now,
    }

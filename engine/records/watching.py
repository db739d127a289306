"""Rows of observations, and the small moves of a host that a monitor makes itself."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.autostart import kept, next_step, told
from domain.base import Frozen
from domain.doors import was_silent
from domain.hosts import POLLED, STAKED, HostEvent
from domain.inventory import FenceDevice, HostState
from domain.profiles import Profile
from domain.readings import HostReading
from engine.clock import Clock, utc_now
from engine.records.eyes import EyeRecords
from engine.records.hanging import HangRecords
from engine.records.soft_steps import SoftStepRecords
from engine.refs import fence_device
from store import (
    ended_runs,
    hosts,
    incidents,
    inventory,
    licences,
    observations,
    plumbing,
)
from store.database import Database
from store.ended_runs import Running
from store.ids import new_id
from store.observations import NOBODY, Me, Watched
from store.rows import Row

DETAIL_MAX = 1024


class WatchedHost(Frozen):
    """One host as a monitor needs it in one round."""

    id: UUID
    name: str
    uri: str
    epoch: int
    state: HostState
    devices: tuple[FenceDevice, ...]
    reserved_mib: int = 0  # memory of its active runs
    autostart: str = ""  # as `domain.autostart.kept` keeps it
    at_stake: bool = True  # a copy may run there that nothing proves to be dead

    @property
    def judged(self) -> bool:
        """Whether a miss of this host means anything."""
        if self.state in STAKED:
            return self.at_stake
        return self.state in POLLED


class Seen(Frozen):
    """What one round saw of one host."""

    host_id: UUID
    verdict: str
    silent_s: float
    misses: int
    others_seen: int
    reading: HostReading | None
    detail: str | None
    last_answer_at: datetime | None
    heard_sequence: int | None  # the last round in which it answered this monitor
    warm: bool = True  # its monitor has looked at it often enough to judge
    since: datetime | None = None  # when its monitor began to watch it


class WatchRecords:
    """What a monitor reads and writes. Every method is one transaction."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self.eyes = EyeRecords(database, clock)
        self.hangs = HangRecords(database, clock)
        self.soft = SoftStepRecords(database, clock)

    async def register(self, name: str, me: Me = NOBODY, was: str | None = None) -> Watched:
        """Begin a monitor's view afresh; the counts that it goes on with.

        Conflict (`MONITOR_NAME_TAKEN`) when another process than `was` has the name.
        """
        now = self._clock()
        return await self._database.write(
            lambda c: observations.register_monitor(
                c, name, now, machine=me.machine, owner=me.owner, was=was
            )
        )

    async def watched(self, profile: Profile) -> tuple[WatchedHost, ...]:
        """Hosts of clusters with this profile that were ever admitted, by name."""

        async def work(connection: AsyncConnection) -> tuple[WatchedHost, ...]:
            found = await observations.watched_hosts(connection, profile.value)
            if not found:
                return ()
            devices: dict[UUID, list[FenceDevice]] = {}
            for row in await inventory.listing(connection, "fence_device"):
                devices.setdefault(row["host_id"], []).append(fence_device(row))
            out = any(row["state"] in STAKED for row in found)
            staked = await licences.at_stake(connection) if out else set()
            return tuple(
                WatchedHost(
                    **row,
                    devices=tuple(devices.get(row["id"], ())),
                    at_stake=row["id"] in staked,
                )
                for row in found
            )

        return await self._database.read(work)

    async def record(
        self,
        name: str,
        sequence: int,
        seen: tuple[Seen, ...],
        *,
        warm: bool,
        watched_ms: Callable[[], int],
        me: Me = NOBODY,
    ) -> None:
        """Write one round; `watched_ms` tells how long the monitor has watched by then.

        Without hosts it is only a sign of life. Conflict (`MONITOR_NAME_TAKEN`) when another
        process has the name by now.
        """
        now = self._clock()
        await self._database.write(
            lambda c: observations.record_round(
                c,
                name,
                sequence,
                warm=warm,
                observations=[_observation(item) for item in seen],
                samples=[_sample(i.host_id, i.reading) for i in seen if i.reading is not None],
                watched_ms=watched_ms,
                now=now,
                me=me,
            )
        )

    async def running_on(self, host: WatchedHost) -> tuple[Running, ...]:
        """The active runs of a host in service."""
        return tuple(
            await self._database.read(lambda c: ended_runs.running_on(c, host.id, host.epoch))
        )

    async def strays(self, host: WatchedHost, vm_ids: frozenset[UUID]) -> tuple[UUID, ...]:
        """Those of these guests of a host that are VMs of ours and should not run there."""
        found = await self._database.read(lambda c: ended_runs.strays(c, host.id, sorted(vm_ids)))
        return tuple(row["id"] for row in found)

    async def report_strays(self, host: WatchedHost, vm_ids: frozenset[UUID]) -> None:
        """Raise an alarm for each of these that still should not run there."""

        async def work(connection: AsyncConnection) -> None:
            for row in await ended_runs.strays(connection, host.id, sorted(vm_ids)):
                should = f"on {row['host_name']}" if row["host_name"] else "nowhere"
                why = f"{row['name']} runs on {host.name} and should run {should}"
                data = {"host": host.name, "why": why, "next_step": _of_stray(row, host)}
                alarm = _alarm(host, "vm.stray", data, self._clock())
                alarm |= {"subject_type": "vm", "subject_id": row["id"]}
                await plumbing.append_event(connection, alarm)

        await self._database.write(work)

    async def missed(self, host: WatchedHost, why: str, by: str = "") -> None:
        """A host in service missed a poll; until that monitor hears it, it is not `up` again."""

        async def work(connection: AsyncConnection) -> None:
            await observations.note_missed(connection, by, host.id)
            found = await inventory.get(connection, "host", host.id)
            if found is None or found["state"] != HostState.UP:
                return  # another monitor has said so before
            await self._move(connection, host, HostEvent.MISSED, f"missed a poll: {why}", by)

        await self._database.write(work)

    async def ignored(self, host: WatchedHost, why: str, by: str = "") -> None:
        """Note the failure of a host whose cluster ignores failures; once, until it answers."""

        async def work(connection: AsyncConnection) -> None:
            found = await inventory.get(connection, "host", host.id)
            if found is not None and found["state"] == HostState.CONNECTING:
                await self._move(connection, host, HostEvent.SILENT, why, by)

        await self._database.write(work)

    async def answered(self, host: WatchedHost, by: str = "") -> bool:
        """A host that missed polls answers again; False while another monitor does not hear it."""

        async def work(connection: AsyncConnection) -> bool:
            if await observations.missed_by_others(connection, by, host.id):
                return False
            await self._move(connection, host, HostEvent.ANSWERED, "answers", by)
            return True

        return await self._database.write(work)

    async def sign_of_life(self, host: WatchedHost, mark: int | None) -> bool:
        """Settle that a host out of service answers; True when it was held to be dead.

        A host whose boot still carries the mark of its epoch never was off: its certificate is
        void from here on. Without the mark it has rebooted, and the certificate stays true.
        """

        async def work(connection: AsyncConnection) -> bool:
            now = self._clock()
            opened = await incidents.find_open(connection, host.id, host.epoch)
            if host.state is HostState.NON_RESPONSIVE and opened is None:
                why = "answers again; nothing was moved"
                told = (HostEvent.RETURNED, why, now)
                await hosts.move(connection, host.id, *told, epoch=host.epoch)
            if mark != host.epoch:
                return False
            reason = "the host answers, in the same boot"
            why = "it answers though its power was read as off: the power controller lies"
            return await self._void(connection, host, reason, why)

        return await self._database.write(work)

    async def door_opens(self, host: WatchedHost, reason: str) -> bool:
        """Void the certificate of a host that is `down`, whose door speaks against its power.

        False, and nothing is changed, once the host has been moved on, or where the certificate
        does not rest on the silence of the door at this address. Repeatable.
        """

        async def work(connection: AsyncConnection) -> bool:
            found = await inventory.get(connection, "host", host.id)
            proof = await incidents.valid_certificate(connection, host.id, host.epoch)
            if found is None or proof is None or not was_silent(proof["evidence"], host.uri):
                return False
            seen = (HostState.DOWN, host.epoch, host.uri)
            if (found["state"], found["epoch"], found["uri"]) != seen:
                return False
            why = (
                "its door opens though its power reads off: the power controller lies, or another "
                "machine has its address"
            )
            return await self._void(connection, host, reason, why)

        return await self._database.write(work)

    async def _void(
        self, connection: AsyncConnection, host: WatchedHost, reason: str, why: str
    ) -> bool:
        """Void the certificate of a host's epoch and raise the alarm; False when none was valid."""
        now = self._clock()
        if not await incidents.void_certificate(connection, host.id, host.epoch, reason, now):
            return False
        await hosts.move(connection, host.id, HostEvent.ALIVE, why, now)
        alarm = _alarm(host, "certificate.voided", {"host": host.name, "why": reason}, now)
        await plumbing.append_event(connection, alarm)
        return True

    async def autostart(self, host: WatchedHost, names: tuple[str, ...], by: str) -> bool:
        """Keep which of our domains a host starts by itself, with an event; True when that is new.

        Idempotent: of several monitors that see the same, one tells it.
        """

        async def work(connection: AsyncConnection) -> bool:
            if not await hosts.note_autostart(connection, host.id, host.autostart, kept(names)):
                return False
            data: Row = {"host": host.name, "monitor": by}
            kind, why = "host.autostart_off", "none of our domains starts by itself any more"
            if names:
                kind, why = "host.autostart", told(host.name, names)
                data["next_step"] = next_step(host.name, names)
            alarm = _alarm(host, kind, data | {"why": why}, self._clock())
            await plumbing.append_event(connection, alarm)
            return True

        return await self._database.write(work)

    async def reported_again(self, host: WatchedHost) -> None:
        """Count one more report of an open incident."""

        async def work(connection: AsyncConnection) -> None:
            opened = await incidents.find_open(connection, host.id, host.epoch)
            if opened is not None:
                await incidents.reported_again(connection, opened["id"])

        await self._database.write(work)

    async def prune(self, before: datetime) -> int:
        """Forget samples older than a time."""
        return await self._database.write(lambda c: observations.prune_samples(c, before))

    async def _move(
        self, connection: AsyncConnection, host: WatchedHost, event: HostEvent, why: str, by: str
    ) -> None:
        now = self._clock()
        if await hosts.move(connection, host.id, event, why, now, epoch=host.epoch):
            data = {"host": host.name, "why": why} | ({"monitor": by} if by else {})
            await plumbing.append_event(connection, _alarm(host, f"host.{event}", data, now))


def _observation(seen: Seen) -> Row:
    reading = seen.reading
    return {
        "host_id": seen.host_id,
        "verdict": seen.verdict,
        "silent_s": seen.silent_s,
        "misses": seen.misses,
        "others_seen": seen.others_seen,
        "detail": seen.detail[:DETAIL_MAX] if seen.detail else None,
        "heard_sequence": seen.heard_sequence,
        "last_answer_at": seen.last_answer_at,
        "boot_mark": reading.boot_mark if reading else None,
        "took_s": reading.took_s if reading else None,
        "warm": seen.warm,
        "since": seen.since,
    }


def _sample(host_id: UUID, reading: HostReading) -> Row:
    return {
        "host_id": host_id,
        "memory_total_mib": reading.memory_total_mib,
        "memory_free_mib": reading.memory_free_mib,
        "cpus": reading.cpus,
        "took_s": reading.took_s,
        "guests": reading.model_dump(mode="json", include={"guests"})["guests"],
    }


def _of_stray(row: Row, host: WatchedHost) -> str:
    there = f"{row['name']} --host {host.name}"
    if not row["host_name"]:
        return f"`holdfast vm end-copy {there}` with `--last-copy` ends it there"
    return (
        f"`holdfast vm end-copy {there}` ends it there; where it is the only one, "
        f"`holdfast vm adopt-copy {there}` makes it the VM's run"
    )


def _alarm(host: WatchedHost, kind: str, data: Row, now: datetime) -> Row:
    return {
        "id": new_id(),
        "type": kind,
        "subject_type": "host",
        "subject_id": host.id,
        "principal": "monitor",
        "correlation_id": f"{host.id.hex}:{host.epoch}",
        "data": data,
        "at": now,
    }

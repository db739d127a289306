"""Watches hosts: polls them, judges them, asks their power controllers, reports failures.

One round polls every host of a profile side by side and writes what it saw in one transaction, so
the cost of a host is one call and one row. A miss does not wait for the round: the host's state is
moved and its power controllers are asked at once, in a task of its own, and a reading of off goes
straight to `run_action(RecoverHost)`. The monitor starts no workflow and cuts no power.

Races  A host is judged by the monitor's memory of its own polls, on its own monotonic clock; the
       rows only tell it which hosts there are. Whatever is reported twice is refused by the unique
       index on open incidents. A power controller may answer after the next polls: what it says is
       weighed with what those saw. While the database is away, the hosts of the last round are
       polled on, so that the verdicts are fresh when it is back.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from activities.ports import Hypervisor, PowerSwitch
from activities.power import ask
from domain.context import ActionContext, PriorityClass
from domain.disarming import FAILURE_IGNORED
from domain.errors import EngineError, Refused, Unavailable
from domain.hosts import MARKED
from domain.inventory import HostState, PowerReading
from domain.liveness import (
    PollResult,
    Verdict,
    Watch,
    after_knock,
    after_poll,
    after_power_reading,
    wants_recovery,
)
from domain.profiles import TIMINGS, Profile, Timing
from domain.readings import HostReading, Knock
from domain.topology import proven_level
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.watching import Seen, WatchedHost, WatchRecords
from worker.guest_watch import GuestWatch

log = structlog.get_logger()

WARM_ROUNDS = 3
"""Rounds before this monitor's word counts. Higher: a fresh engine waits longer to fence. Lower:
it may take a host for dead that it has never heard."""

KNOCK_S = 0.5
"""How long the door of a host that is held to be silent is listened at. Higher: an isolated host
is reported later. Lower: a slow kernel behind a hung libvirtd is taken for dead."""

REACTIVATE_S = 5.0
REACTIVATE_MAX_S = 600.0
"""First and longest wait between activations of a host that keeps no mark of its boot: doubled
each time, so that a host which loses it at once does not raise its epoch at every poll."""

KEEP = timedelta(hours=1)
PRUNE_EVERY_S = 60.0


class Monitor:
    """One monitor process's watching of all hosts."""

    def __init__(
        self,
        name: str,
        records: WatchRecords,
        backend: Backend,
        hypervisor: Hypervisor,
        power: PowerSwitch,
        now: Clock = utc_now,
    ) -> None:
        self._name = name
        self._records = records
        self._backend = backend
        self._hypervisor = hypervisor
        self._power = power
        self._guests = GuestWatch(name, records, backend)
        self._now = now
        self._watches: dict[UUID, Watch] = {}
        self._answers: dict[UUID, datetime] = {}
        self._heard_in: dict[UUID, int] = {}  # the last round in which each answered
        self._asking: dict[UUID, asyncio.Task[None]] = {}
        self._known: dict[Profile, tuple[WatchedHost, ...]] = {}
        self._reboots: dict[UUID, tuple[int, float]] = {}  # tries, not before
        self._sequence = 0
        self._watched_since_s = 0.0
        self._rounds: defaultdict[Profile, int] = defaultdict(int)
        self.on_round: Callable[[float], None] = lambda late_s: None

    async def run(self) -> None:
        """Watch until cancelled; a database that is away only costs rounds."""
        await self._until_registered()
        async with asyncio.TaskGroup() as group:
            for profile, timing in TIMINGS.items():
                group.create_task(self._rounds_of(profile, timing))
            group.create_task(self._prune())

    async def _until_registered(self) -> None:
        while True:
            try:
                known = await self._records.register(self._name)
                self._sequence = known.sequence
                self._watched_since_s = _monotonic_s() - known.watched_ms / 1000
                return
            except EngineError as error:
                log.warning("monitor waits for the database", code=error.code)
                await asyncio.sleep(1)

    async def _rounds_of(self, profile: Profile, timing: Timing) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            self.on_round(clock() - due)
            try:
                await self._round(profile, timing)
            except EngineError as error:
                log.warning("round not recorded", profile=profile, code=error.code)
            except Exception:  # the next round may well be recorded
                log.exception("round not recorded", profile=profile)
            due = max(due + timing.poll_s, clock())
            await asyncio.sleep(due - clock())

    async def _round(self, profile: Profile, timing: Timing) -> None:
        hosts = await self._hosts(profile)
        if not hosts:
            return
        polled = await asyncio.gather(*(self._poll(host, timing) for host in hosts))
        answered = sum(1 for reading in polled if isinstance(reading, HostReading))
        self._rounds[profile] += 1
        self._sequence += 1
        seen = tuple(
            self._seen(host, result, answered) for host, result in zip(hosts, polled, strict=True)
        )
        warm = self._rounds[profile] >= WARM_ROUNDS
        await self._records.record(
            self._name, self._sequence, seen, warm=warm, watched_ms=self._watched_ms
        )

    def _watched_ms(self) -> int:
        return int((_monotonic_s() - self._watched_since_s) * 1000)

    async def _hosts(self, profile: Profile) -> tuple[WatchedHost, ...]:
        try:
            self._known[profile] = await self._records.watched(profile)
        except Unavailable as error:
            log.warning("monitor polls without the database", profile=profile, code=error.code)
        return self._known.get(profile, ())

    async def _poll(self, host: WatchedHost, timing: Timing) -> HostReading | EngineError:
        try:
            reading = await self._hypervisor.poll(host.uri, timing.poll_deadline_s)
        except EngineError as error:
            result = PollResult.REFUSED if _refused(error) else PollResult.SILENT
            with _contained(host):
                await self._missed(host, result, timing, error)
            return error
        now_s = asyncio.get_running_loop().time()
        self._watches[host.id] = after_poll(self._watch(host), PollResult.ANSWERED, now_s, timing)
        self._answers[host.id] = self._now()
        with _contained(host):
            await self._heard(host, reading)
        return reading

    def _watch(self, host: WatchedHost) -> Watch:
        # A host that was never heard by this monitor is silent only from now on.
        now_s = asyncio.get_running_loop().time()
        return self._watches.get(host.id) or Watch(heard_at_s=now_s)

    async def _missed(
        self, host: WatchedHost, result: PollResult, timing: Timing, error: EngineError
    ) -> None:
        if not host.judged:
            return
        now_s = asyncio.get_running_loop().time()
        watch = after_poll(self._watch(host), result, now_s, timing)
        self._watches[host.id] = watch
        if host.state is HostState.UP:
            await self._records.missed(host, error.detail)
            log.info("host missed a poll", host=host.name, why=error.detail, misses=watch.misses)
        if result is PollResult.SILENT and host.id not in self._asking:
            task = asyncio.create_task(self._ask(host))
            self._asking[host.id] = task
            task.add_done_callback(lambda _done: self._asking.pop(host.id, None))

    async def _ask(self, host: WatchedHost) -> None:
        """Ask the power controllers of a silent host, and report what follows."""
        # A power cut is told by its controllers alone: nobody waits for a door that stays silent.
        early = self._watch(host).verdict is Verdict.NON_RESPONSIVE
        knocking = asyncio.create_task(self._knock(host)) if early else None
        said = await ask(self._power, host.devices)
        watch = self._watch(host)
        words = [(d.level, word) for d, (word, _s) in zip(host.devices, said, strict=True)]
        if proven_level(words) is not None:
            watch = after_power_reading(watch, PowerReading.OFF)
        if watch.verdict is Verdict.NON_RESPONSIVE:
            door = await (knocking or asyncio.create_task(self._knock(host)))
            watch = after_knock(self._watch(host), door, _monotonic_s())
            if watch.verdict is Verdict.CONNECTING:
                self._watches[host.id] = watch
                log.warning("libvirtd hangs, its host lives", host=host.name, door=door)
        if not wants_recovery(watch):
            return
        self._watches[host.id] = watch
        facts = tuple(
            {
                "kind": "power_reading",
                "device": device.name,
                "verdict": word.value,
                "took_s": took_s,
            }
            for device, (word, took_s) in zip(host.devices, said, strict=True)
        )
        with _contained(host):
            await self._report(host, watch, facts)

    async def _knock(self, host: WatchedHost) -> Knock | None:
        """What comes back from a host's door; None when it could not be tried."""
        try:
            return await self._hypervisor.knock(host.uri, KNOCK_S)
        except EngineError as error:
            log.info("door not tried", host=host.name, code=error.code)
            return None

    async def _report(
        self, host: WatchedHost, watch: Watch, facts: tuple[dict[str, Any], ...]
    ) -> None:
        why = (
            "silent, and its power reads off"
            if watch.verdict is Verdict.POWERED_OFF
            else f"silent for {watch.misses} polls"
        )
        action = RecoverHost(
            host_id=host.id,
            epoch=host.epoch,
            why=why,
            reported_by=self._name,
            last_answer_at=self._answers.get(host.id),
            readings=facts,
        )
        try:
            receipt = await self._backend.run_action(action, self._context(host))
        except Refused as error:
            if error.code == "INCIDENT_OPEN":
                await self._records.reported_again(host)
            elif error.code == FAILURE_IGNORED:
                await self._records.ignored(host, f"{why}; failures are ignored now")
            else:
                log.info("failure not taken", host=host.name, code=error.code, why=error.detail)
            return
        except EngineError as error:
            log.warning("failure not reported", host=host.name, code=error.code)
            return
        log.warning(
            "host failure reported",
            host=host.name,
            epoch=host.epoch,
            why=why,
            operation_id=str(receipt.operation_id),
        )

    async def _heard(self, host: WatchedHost, reading: HostReading) -> None:
        in_service = host.state in MARKED
        if in_service and reading.boot_mark != host.epoch:
            # Before all else: a host that only missed polls while it rebooted must not be `up`.
            await self._rebooted(host, reading.boot_mark)
            return
        if in_service:
            self._reboots.pop(host.id, None)
        if host.state is HostState.UP:
            await self._guests.compare(host, reading)
        else:
            self._guests.forget(host)
        if host.state is HostState.CONNECTING:
            await self._records.answered(host)
            log.info("host answers again", host=host.name)
        elif host.state in (HostState.DOWN, HostState.NON_RESPONSIVE):
            await self._alive_though_out_of_service(host, reading)

    async def _alive_though_out_of_service(self, host: WatchedHost, reading: HostReading) -> None:
        if await self._records.sign_of_life(host, reading.boot_mark):
            log.error("sign of life of a host held to be dead", host=host.name)

    async def _rebooted(self, host: WatchedHost, mark: int | None) -> None:
        now_s = asyncio.get_running_loop().time()
        tries, not_before_s = self._reboots.get(host.id, (0, now_s))
        if now_s < not_before_s:
            return
        log.warning("host has rebooted", host=host.name, epoch=host.epoch, mark=mark)
        with contextlib.suppress(Refused):
            action = ActivateHost(host_id=host.id, rebooted_epoch=host.epoch)
            await self._backend.run_action(action, self._context(host))
            wait_s = min(REACTIVATE_S * 2 ** min(tries, 10), REACTIVATE_MAX_S)
            self._reboots[host.id] = (tries + 1, now_s + wait_s)

    def _context(self, host: WatchedHost) -> ActionContext:
        return ActionContext(
            principal=f"monitor:{self._name}",
            correlation_id=f"{host.id.hex}:{host.epoch}",
            reason="host failure",
            priority=PriorityClass.RECOVERY,
        )

    def _seen(self, host: WatchedHost, result: HostReading | EngineError, answered: int) -> Seen:
        watch = self._watch(host)
        heard = isinstance(result, HostReading)
        now_s = asyncio.get_running_loop().time()
        refused = isinstance(result, EngineError) and _refused(result)
        if heard:
            self._heard_in[host.id] = self._sequence
        return Seen(
            host_id=host.id,
            verdict="refused" if refused else watch.verdict.value,
            silent_s=0.0 if heard else round(now_s - watch.heard_at_s, 3),
            misses=watch.misses,
            others_seen=answered - 1 if heard else answered,
            reading=result if isinstance(result, HostReading) else None,
            detail=None if isinstance(result, HostReading) else result.detail,
            last_answer_at=self._answers.get(host.id),
            heard_sequence=self._heard_in.get(host.id),
        )

    async def _prune(self) -> None:
        while True:
            try:
                await self._records.prune(self._now() - KEEP)
            except EngineError as error:
                log.info("samples not pruned", code=error.code)
            except Exception:  # old samples are no reason to watch nothing
                log.exception("samples not pruned")
            await asyncio.sleep(PRUNE_EVERY_S)


@contextlib.contextmanager
def _contained(host: WatchedHost) -> Iterator[None]:
    """What cannot be settled for one host now is tried at its next poll; the others go on."""
    try:
        yield
    except EngineError as error:
        log.warning("host not settled in this round", host=host.name, code=error.code)
    except Exception:  # one host's defect must not blind us to all the others
        log.exception("host not settled in this round", host=host.name)


def _monotonic_s() -> float:
    return asyncio.get_running_loop().time()


def _refused(error: EngineError) -> bool:
    """Whether the host's kernel or its libvirtd said no, which only the living do."""
    return isinstance(error, Refused) or error.code == "HOST_PORT_REFUSED"

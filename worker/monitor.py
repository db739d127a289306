"""Watches hosts: polls them, judges them, asks their power controllers, reports failures.

Each round it works out which hosts of a profile are its own (`worker.roster`), polls them side by
side and writes what it saw in one transaction, so the cost of a host is one call and one row. A
miss does not wait for the round: the host's state is moved and its power controllers are asked at
once, in a task of its own, and a reading of off goes straight to `run_action(RecoverHost)`. The
monitor starts no workflow and cuts no power. While it hears nothing at all and others do
(`worker.sight`), it says nothing of any host.

Races  A host is judged by the monitor's memory of its own polls, on its own monotonic clock; the
       rows only tell it which hosts there are. Whatever is reported twice is refused by the unique
       index on open incidents. A power controller may answer after the next polls: what it says is
       weighed with what those saw. While the database is away, the hosts of the last round are
       polled on, so that the verdicts are fresh when it is back.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from activities.ports import Hypervisor, PowerSwitch
from activities.power import Said, ask, proves_off
from domain.errors import EngineError, NoAnswer, Unavailable
from domain.eyes import BEAT_S, Eye
from domain.hosts import MARKED
from domain.inventory import HostState, PowerReading
from domain.liveness import (
    PollResult,
    Verdict,
    Watch,
    after_knock,
    after_poll,
    after_power_reading,
    for_next_poll,
    judgeable,
    wants_recovery,
)
from domain.profiles import TIMINGS, Profile, Timing
from domain.readings import HostReading, Knock
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.watching import Seen, WatchedHost, WatchRecords
from store.observations import Me
from worker.door_watch import DoorWatch
from worker.early import LATE_S, EarlyQuestions
from worker.guest_watch import GuestWatch
from worker.owners import Identity, take_name
from worker.reports import Reports
from worker.roster import WARM_ROUNDS, Roster
from worker.sight import Sight, said_no

log = structlog.get_logger()

KNOCK_S = 0.5
"""How long the door of a host that is held to be silent is listened at. Higher: an isolated host
is reported later. Lower: a slow kernel behind a hung libvirtd is taken for dead."""

KEEP = timedelta(hours=1)
PRUNE_EVERY_S = 60.0


NOBODY_KNOWN = Identity()


class Monitor:
    """One monitor process's watching of its hosts."""

    def __init__(
        self,
        name: str,
        records: WatchRecords,
        backend: Backend,
        hypervisor: Hypervisor,
        power: PowerSwitch,
        now: Clock = utc_now,
        who: Identity = NOBODY_KNOWN,
    ) -> None:
        self._name = name
        self._who = who
        self._machine = who.machine or name
        self._roster = Roster(name, records.eyes, now)
        self._records = records
        self._hypervisor = hypervisor
        self._power = power
        self._guests = GuestWatch(name, records, backend, hypervisor)
        self._reports = Reports(name, records, backend)
        self._doors = DoorWatch(records, hypervisor, power)
        self._sight = Sight(name, records.eyes, now)
        self._now = now
        self._watches: dict[UUID, Watch] = {}
        self._answers: dict[UUID, datetime] = {}
        self._heard_in: dict[UUID, int] = {}  # the last round in which each answered
        self._asking: dict[UUID, asyncio.Task[None]] = {}
        self._early = EarlyQuestions(power, self._off_early)
        self._known: dict[Profile, tuple[WatchedHost, ...]] = {}
        self._sequence = 0
        self._watched_since_s = 0.0
        self._settled: set[UUID] = set()  # hosts that it may judge since it began
        self._warm = False
        self._beats = 0  # signs of life that were written
        self._beat_due = True
        self.on_round: Callable[[float], None] = lambda late_s: None

    async def run(self) -> None:
        """Watch until cancelled; a database that is away only costs rounds.

        Conflict (`MONITOR_NAME_TAKEN`) when another live process has this monitor's name.
        """
        await self._until_registered()
        async with asyncio.TaskGroup() as group:
            for profile, timing in TIMINGS.items():
                group.create_task(self._rounds_of(profile, timing))
            group.create_task(self._beat())
            group.create_task(self._prune())

    async def leave(self) -> None:
        """Tell the other monitors that this one ends."""
        await self._roster.leave(self._who.mark)

    async def _until_registered(self) -> None:
        while True:
            try:
                known = await take_name(self._records, self._name, self._who)
                self._sequence = known.sequence
                self._watched_since_s = _monotonic_s() - known.watched_ms / 1000
                return await self._roster.look()
            except EngineError as error:
                _unless_taken(error)
                log.warning("monitor waits for the database", code=error.code)
                await asyncio.sleep(1)

    async def _beat(self) -> None:
        """Look at the other monitors, and give a sign of life where no round has given one."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._roster.look()
                if self._beat_due:
                    self._sequence += 1
                    await self._write(self._sequence, ())
            except EngineError as error:
                _unless_taken(error)
                log.info("no sign of life given", code=error.code)
            except Exception:  # the next one may well be
                log.exception("no sign of life given")
            self._beat_due = True

    async def _write(self, sequence: int, seen: tuple[Seen, ...]) -> None:
        await self._records.record(
            self._name,
            sequence,
            seen,
            warm=self._beats + 1 >= WARM_ROUNDS,
            watched_ms=self._watched_ms,
            me=Me(self._who.mark, self._machine, self._sight.blind_at),
        )
        self._beats += 1
        self._beat_due = False

    def _eye(self) -> Eye:
        return Eye(
            name=self._name,
            machine=self._machine,
            warm=self._beats >= WARM_ROUNDS,
            blind=self._sight.blind,
        )

    async def _rounds_of(self, profile: Profile, timing: Timing) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            self.on_round(clock() - due)
            try:
                await self._round(profile, timing)
            except EngineError as error:
                _unless_taken(error)
                log.warning("round not recorded", profile=profile, code=error.code)
            except Exception:  # the next round may well be recorded
                log.exception("round not recorded", profile=profile)
            due = max(due + timing.poll_s, clock())
            await asyncio.sleep(due - clock())

    async def _round(self, profile: Profile, timing: Timing) -> None:
        listed = await self._hosts(profile)
        wanted = timing.monitors_per_host
        hosts = self._roster.mine(profile, listed, wanted, self._eye())
        if not hosts:
            self._sight.nothing_to_see(profile)
            return
        polled = await asyncio.gather(*(self._poll(host, timing) for host in hosts))
        answered = sum(1 for reading in polled if isinstance(reading, HostReading))
        self._sequence += 1
        sequence = self._sequence
        self._settle(hosts, polled)
        seen = tuple(
            self._seen(host, result, answered) for host, result in zip(hosts, polled, strict=True)
        )
        await self._sight.look(profile, hosts, polled)
        await self._write(sequence, seen)
        await self._roster.hand_over(hosts, wanted, self._eye())

    @property
    def _cut_off(self) -> bool:
        """Whether this monitor alone hears nothing: then it says nothing of any host."""
        return self._sight.blind and self._roster.others_see

    def _settle(self, hosts: Sequence[WatchedHost], polled: Sequence[object]) -> None:
        """See whether the view is warm: what was once judgeable stays so while it is watched."""
        for host, result in zip(hosts, polled, strict=True):
            heard = isinstance(result, HostReading) or host.id in self._heard_in
            if judgeable(self._watches.get(host.id), answered=heard):
                self._settled.add(host.id)
        self._warm = all(host.id in self._settled for host in hosts if host.judged)

    def _watched_ms(self) -> int:
        return int((_monotonic_s() - self._watched_since_s) * 1000)

    async def _hosts(self, profile: Profile) -> tuple[WatchedHost, ...]:
        try:
            self._known[profile] = await self._records.watched(profile)
        except Unavailable as error:
            log.warning("monitor polls without the database", profile=profile, code=error.code)
        return self._known.get(profile, ())

    async def _poll(self, host: WatchedHost, timing: Timing) -> HostReading | EngineError:
        timing = for_next_poll(self._watch(host), _monotonic_s(), timing)
        late = self._early.about(host, timing)
        try:
            reading = await self._hypervisor.poll(host.uri, timing.poll_deadline_s)
        except EngineError as error:
            late.end()  # what follows here takes its time
            result = PollResult.REFUSED if said_no(error) else PollResult.SILENT
            with _contained(host):
                await self._missed(host, result, timing, error)
            return error
        finally:
            late.end()
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

    async def _off_early(self, host: WatchedHost, timing: Timing, said: Said) -> None:
        """A poll that is late and a host that reads off: nobody waits for the deadline."""
        why = f"{host.name} did not answer within {LATE_S} s, and its power reads off"
        with _contained(host):
            await self._missed(host, PollResult.SILENT, timing, NoAnswer("HOST_OFF", why), said)

    async def _missed(
        self,
        host: WatchedHost,
        result: PollResult,
        timing: Timing,
        error: EngineError,
        said: Said | None = None,
    ) -> None:
        if not host.judged:
            self._doors.missed(host)
            return
        now_s = asyncio.get_running_loop().time()
        watch = after_poll(self._watch(host), result, now_s, timing)
        self._watches[host.id] = watch
        if self._cut_off:
            return
        if host.state is HostState.UP:
            await self._records.missed(host, error.detail, self._name)
            log.info("host missed a poll", host=host.name, why=error.detail, misses=watch.misses)
        if result is PollResult.SILENT and host.id not in self._asking:
            task = asyncio.create_task(self._ask(host, said))
            self._asking[host.id] = task
            task.add_done_callback(lambda _done: self._asking.pop(host.id, None))

    async def _ask(self, host: WatchedHost, said: Said | None = None) -> None:
        """Ask the power controllers of a silent host, unless they have `said`, and report."""
        # A power cut is told by its controllers alone: nobody waits for a door that stays silent.
        early = self._watch(host).verdict is Verdict.NON_RESPONSIVE
        knocking = asyncio.create_task(self._knock(host)) if early else None
        said = said or await ask(self._power, host.devices)
        watch = self._watch(host)
        if proves_off(host.devices, said):
            watch = after_power_reading(watch, PowerReading.OFF)
        if watch.verdict is Verdict.NON_RESPONSIVE:
            door = await (knocking or asyncio.create_task(self._knock(host)))
            silent = self._watch(host)
            watch = after_knock(silent, door, _monotonic_s())
            if watch.verdict is Verdict.CONNECTING and door is not None:
                self._watches[host.id] = watch
                log.warning("libvirtd hangs, its host lives", host=host.name, door=door)
                with _contained(host):
                    power = tuple(word for word, _took_s in said)
                    await self._reports.hung(host, silent.silent_s, door, power)
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
            await self._reports.failed(host, watch, facts, self._answers.get(host.id))

    async def _knock(self, host: WatchedHost) -> Knock | None:
        """What comes back from a host's door; None when it could not be tried."""
        try:
            return await self._hypervisor.knock(host.uri, KNOCK_S)
        except EngineError as error:
            log.info("door not tried", host=host.name, code=error.code)
            return None

    async def _heard(self, host: WatchedHost, reading: HostReading) -> None:
        in_service = host.state in MARKED
        if in_service and reading.boot_mark != host.epoch:
            # Before all else: a host that only missed polls while it rebooted must not be `up`.
            await self._reports.rebooted(host, reading.boot_mark)
            return
        if in_service:
            self._reports.settled(host)
        if host.state is HostState.UP:
            await self._guests.compare(host, reading)
        else:
            self._guests.forget(host)
        if host.state is HostState.CONNECTING:
            if await self._records.answered(host, self._name):
                log.info("host answers again", host=host.name)
        elif host.state in (HostState.DOWN, HostState.NON_RESPONSIVE):
            await self._alive_though_out_of_service(host, reading)
        await self._reports.autostart(host, reading.autostart)

    async def _alive_though_out_of_service(self, host: WatchedHost, reading: HostReading) -> None:
        if await self._records.sign_of_life(host, reading.boot_mark):
            log.error("sign of life of a host held to be dead", host=host.name)

    def _seen(self, host: WatchedHost, result: HostReading | EngineError, answered: int) -> Seen:
        watch = self._watch(host)
        heard = isinstance(result, HostReading)
        refused = isinstance(result, EngineError) and said_no(result)
        if heard:
            self._heard_in[host.id] = self._sequence
        return Seen(
            host_id=host.id,
            verdict="refused" if refused else watch.verdict.value,
            silent_s=round(watch.silent_s, 3),
            misses=watch.misses,
            others_seen=answered - 1 if heard else answered,
            reading=result if isinstance(result, HostReading) else None,
            detail=None if isinstance(result, HostReading) else result.detail,
            last_answer_at=self._answers.get(host.id),
            heard_sequence=self._heard_in.get(host.id),
            warm=self._warm and self._roster.warm(host.id),
            since=self._roster.since(host.id),
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


def _unless_taken(error: EngineError) -> None:
    """Nothing passes that another process has this one's name."""
    if error.code == "MONITOR_NAME_TAKEN":
        raise error


def _monotonic_s() -> float:
    return asyncio.get_running_loop().time()

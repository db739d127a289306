"""Compares what a host runs with what should run there: reports guests that ended or are paused.

A poll tells which guests run. A run that was known before the poll began and is not in it has
ended, or is being ended by an operation: the report goes to `run_action(RecoverVm)`, which is
refused where somebody is at work on the VM, and whose workflow reads the host before it believes
anything. The rows are read again only when the guests of a host or its reserved memory change,
while a start or stop is under way there, or after a while: a quiet round compares two sets.
"""

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import structlog

from activities.ports import Hypervisor
from domain.context import ActionContext, PriorityClass
from domain.errors import EngineError, Refused
from domain.readings import HostReading, StateReason
from engine.actions.vm_recovery import RecoverVm
from engine.backend import Backend
from engine.records.watching import WatchedHost, WatchRecords
from store.ended_runs import Running
from worker.hang_watch import HangWatch

log = structlog.get_logger()

READ_AGAIN_S = 30.0
"""How old the known runs of a host may be. Higher: what no sign has told is noticed later. Lower:
each host costs a query so often."""

REPORT_AGAIN_S = 2.0
REPORT_AGAIN_MAX_S = 30.0
"""First and longest wait before a report that came to nothing is made again; doubled each time."""


Shape: TypeAlias = tuple[int, ...]


@dataclass
class _Known:
    """What a host should run, as it was before the next poll."""

    runs: tuple[Running, ...]
    epoch: int
    guests: frozenset[UUID]
    paused: frozenset[UUID]
    reserved_mib: int
    read_at_s: float
    quiet: Shape | None = None  # of the last poll that showed nothing new

    @property
    def moving(self) -> bool:
        """Whether a start or a stop is under way."""
        return not all(run.settled for run in self.runs)


@dataclass
class _Reported:
    """When a run was reported last, and how long to wait before it is again."""

    not_before_s: float
    wait_s: float = field(default=REPORT_AGAIN_S)


class GuestWatch:
    """One monitor's view of the guests of its hosts."""

    def __init__(
        self, name: str, records: WatchRecords, backend: Backend, hypervisor: Hypervisor
    ) -> None:
        self._name = name
        self._hangs = HangWatch(name, records.hangs, hypervisor, self._report_hung)
        self._records = records
        self._backend = backend
        self._known: dict[UUID, _Known] = {}
        self._reported: dict[UUID, dict[UUID, _Reported]] = {}  # by host and run
        self._strays: dict[UUID, dict[UUID, bool]] = {}  # by host and VM: whether it was told
        self._reporting: dict[UUID, asyncio.Task[None]] = {}

    async def compare(self, host: WatchedHost, reading: HostReading) -> None:
        """Report the runs of a host in service that a poll of it has not shown, or that hang."""
        await self._compare(host, reading)
        self._hangs.listen(host, self._known[host.id].runs, reading)

    async def _compare(self, host: WatchedHost, reading: HostReading) -> None:
        known, shape = self._known.get(host.id), _shape(host, reading)
        if known is not None and known.quiet == shape and not self._is_old(known):
            return
        guests = frozenset(guest.vm_id for guest in reading.guests)
        paused = frozenset(g.vm_id for g in reading.guests if g.reason is StateReason.IO_ERROR)
        if known is None or known.epoch != host.epoch:
            known = await self._read(host, guests, paused)
            await self._look_for_strays(host, guests - {run.vm_id for run in known.runs})
            return
        wrong = [run for run in known.runs if _is_wrong(run, guests, paused)]
        seen = (guests, paused, host.reserved_mib)
        same = seen == (known.guests, known.paused, known.reserved_mib)
        same = same and all(self._strays.get(host.id, {}).values())
        if not (wrong or known.moving or self._is_old(known)) and same:
            known.quiet = shape
            return
        known = await self._read(host, guests, paused)
        await self._look_for_strays(host, guests - {run.vm_id for run in known.runs})
        now = {run.run_id: run for run in known.runs}
        still = [now[run.run_id] for run in wrong if run.run_id in now]
        ended = tuple(run for run in still if _is_wrong(run, guests, paused))
        if ended and host.id not in self._reporting:
            # Apart: a host that lost a hundred guests must not hold up what is seen of the others.
            task = asyncio.create_task(self._report_all(host, ended, guests))
            self._reporting[host.id] = task
            task.add_done_callback(lambda _done: self._reporting.pop(host.id, None))

    def _is_old(self, known: _Known) -> bool:
        return asyncio.get_running_loop().time() - known.read_at_s >= READ_AGAIN_S

    @property
    def reporting(self) -> tuple[asyncio.Task[None], ...]:
        """Reports that are being made, and questions that are being asked."""
        return (*self._reporting.values(), *self._hangs.asking)

    async def _look_for_strays(self, host: WatchedHost, unknown: frozenset[UUID]) -> None:
        """Raise an alarm for VMs of ours that two looks have found where they should not run."""
        found = await self._records.strays(host, unknown) if unknown else ()
        before = self._strays.get(host.id, {})
        again = frozenset(vm_id for vm_id in found if before.get(vm_id) is False)
        if again:
            await self._records.report_strays(host, again)
            log.error("VMs run where they should not", host=host.name, count=len(again))
        self._strays[host.id] = {
            vm_id: vm_id in again or before.get(vm_id, False) for vm_id in found
        }

    def forget(self, host: WatchedHost) -> None:
        """A host out of service is read anew once it is back."""
        self._known.pop(host.id, None)
        self._hangs.forget(host.id)

    async def _report_hung(self, host: WatchedHost, run: Running, silent_s: float) -> None:
        why = f"its guest agent on {host.name} has been silent for {silent_s:.0f} s"
        await self._report(host, run, why, hung=True)

    async def _read(
        self, host: WatchedHost, guests: frozenset[UUID], paused: frozenset[UUID]
    ) -> _Known:
        runs = await self._records.running_on(host)
        now_s = asyncio.get_running_loop().time()
        known = self._known[host.id] = _Known(
            runs, host.epoch, guests, paused, host.reserved_mib, now_s
        )
        there = {run.run_id for run in runs}
        reported = self._reported.get(host.id, {})
        self._reported[host.id] = {run: told for run, told in reported.items() if run in there}
        return known

    async def _report_all(
        self, host: WatchedHost, ended: tuple[Running, ...], guests: frozenset[UUID]
    ) -> None:
        for run in ended:
            why = f"a poll of {host.name} does not show it any more"
            if run.vm_id in guests:
                why = f"a poll of {host.name} shows that it was paused, or goes on"
            try:
                await self._report(host, run, why)
            except Exception:  # one run's defect must not hide the others
                log.exception("end of a guest not reported", vm_id=str(run.vm_id))

    async def _report(
        self, host: WatchedHost, run: Running, why: str, *, hung: bool = False
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        reported = self._reported.setdefault(host.id, {})
        before = reported.get(run.run_id)
        if before is not None and now_s < before.not_before_s:
            return
        wait_s = REPORT_AGAIN_S if before is None else min(2 * before.wait_s, REPORT_AGAIN_MAX_S)
        reported[run.run_id] = _Reported(now_s + wait_s, wait_s)
        action = RecoverVm(
            vm_id=run.vm_id, run_id=run.run_id, why=why, reported_by=self._name, hung=hung
        )
        try:
            receipt = await self._backend.run_action(action, self._context(host, run))
        except Refused as error:
            log.info("end of a guest not taken", vm_id=str(run.vm_id), code=error.code)
        except EngineError as error:
            log.warning("end of a guest not reported", vm_id=str(run.vm_id), code=error.code)
        else:
            log.warning(
                "end of a guest reported",
                vm_id=str(run.vm_id),
                host=host.name,
                generation=run.generation,
                operation_id=str(receipt.operation_id),
            )

    def _context(self, host: WatchedHost, run: Running) -> ActionContext:
        return ActionContext(
            principal=f"monitor:{self._name}",
            correlation_id=f"{run.vm_id.hex}:{run.generation}",
            reason=f"its guest ended, is paused or hangs on {host.name}",
            priority=PriorityClass.RECOVERY,
        )


def _shape(host: WatchedHost, reading: HostReading) -> Shape:
    """All of a poll that is compared, in numbers: comparing ids takes ten times as long."""
    ids = (guest.vm_id.int for guest in reading.guests)
    paused = (guest.vm_id.int for guest in reading.guests if guest.reason is StateReason.IO_ERROR)
    return (host.epoch, host.reserved_mib, *ids, -1, *paused)


def _is_wrong(run: Running, guests: frozenset[UUID], paused: frozenset[UUID]) -> bool:
    """Whether a poll contradicts what is known of a run, or shows what the engine sees to."""
    if not run.settled:
        return False
    if run.vm_id not in guests:
        return True
    if run.vm_id in paused:
        return run.resumes or not run.paused
    return run.paused

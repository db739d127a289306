"""What a monitor asks the engine for: to recover from a host's failure, to reconcile a reboot.

It goes through the one door; whatever is reported twice is refused there.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from domain.autostart import kept
from domain.context import ActionContext, PriorityClass
from domain.disarming import FAILURE_IGNORED
from domain.errors import EngineError, Refused
from domain.inventory import PowerReading
from domain.liveness import Verdict, Watch
from domain.readings import Knock
from domain.soft_step import Hung
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.soft_steps import RestartLibvirtd
from engine.backend import Backend
from engine.records.watching import WatchedHost, WatchRecords

log = structlog.get_logger()

REACTIVATE_S = 5.0
REACTIVATE_MAX_S = 600.0
"""First and longest wait between activations of a host that keeps no mark of its boot: doubled
each time, so that a host which loses it at once does not raise its epoch at every poll."""

BUSY = frozenset({"LOCK_HELD", "HOST_STATE_FORBIDS"})
"""Refusals that say nothing of the hanging: another operation, or another monitor, was first."""


def told(error: Refused) -> str:
    """The first of a refusal's reasons, with its code and what to do."""
    first: EngineError = error.problems[0] if error.problems else error
    return f"{first.code}, {first.detail}; {first.next_step}"


class Reports:
    """One monitor's reports."""

    def __init__(self, name: str, records: WatchRecords, backend: Backend) -> None:
        self._name = name
        self._records = records
        self._backend = backend
        self._soft = records.soft
        self._reboots: dict[UUID, tuple[int, float]] = {}  # tries, not before

    async def failed(
        self,
        host: WatchedHost,
        watch: Watch,
        facts: tuple[dict[str, Any], ...],
        last_answer_at: datetime | None,
    ) -> None:
        """Report a host's failure with what its power controllers said."""
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
            last_answer_at=last_answer_at,
            readings=facts,
        )
        try:
            receipt = await self._backend.run_action(action, self._context(host))
        except Refused as error:
            if error.code == "INCIDENT_OPEN":
                await self._records.reported_again(host)
            elif error.code == FAILURE_IGNORED:
                why = f"{why}; failures are ignored now"
                await self._records.ignored(host, why, self._name)
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

    async def hung(
        self, host: WatchedHost, silent_s: float, door: Knock, power: tuple[PowerReading, ...]
    ) -> None:
        """Report that libvirt is silent behind a door that opens; a no is told on the host."""
        report = Hung(
            epoch=host.epoch,
            silent_s=round(silent_s, 1),
            door=door,
            power=power,
            reported_by=self._name,
        )
        try:
            action = RestartLibvirtd(host_id=host.id, hung=report)
            receipt = await self._backend.run_action(action, self._context(host, "libvirtd hangs"))
        except Refused as error:
            log.info("libvirtd not restarted", host=host.name, code=error.code, why=error.detail)
            if error.code not in BUSY:
                why = f"its libvirtd hangs, its guests run on; not restarted: {told(error)}"
                await self._soft.refused(host.id, host.epoch, why)
            return
        except EngineError as error:
            log.warning("hung libvirtd not reported", host=host.name, code=error.code)
            return
        operation = str(receipt.operation_id)
        log.warning("libvirtd is to be restarted", host=host.name, operation_id=operation)

    async def rebooted(self, host: WatchedHost, mark: int | None) -> None:
        """Have a host reconciled that has lost the mark of its boot, not too often."""
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

    async def autostart(self, host: WatchedHost, names: tuple[str, ...] | None) -> None:
        """Warn of our domains that a host starts by itself, and take that back; None: not known."""
        if names is None or kept(names) == host.autostart:
            return
        if await self._records.autostart(host, names, self._name) and names:
            log.warning("domains of ours start at boot", host=host.name, domains=list(names))

    def settled(self, host: WatchedHost) -> None:
        """A host in service carries the mark of its boot."""
        self._reboots.pop(host.id, None)

    def _context(self, host: WatchedHost, reason: str = "host failure") -> ActionContext:
        return ActionContext(
            principal=f"monitor:{self._name}",
            correlation_id=f"{host.id.hex}:{host.epoch}",
            reason=reason,
            priority=PriorityClass.RECOVERY,
        )

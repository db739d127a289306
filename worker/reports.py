"""What a monitor asks the engine for: to recover from a host's failure, to reconcile a reboot.

It goes through the one door; whatever is reported twice is refused there.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from domain.context import ActionContext, PriorityClass
from domain.disarming import FAILURE_IGNORED
from domain.errors import EngineError, Refused
from domain.liveness import Verdict, Watch
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.backend import Backend
from engine.records.watching import WatchedHost, WatchRecords

log = structlog.get_logger()

REACTIVATE_S = 5.0
REACTIVATE_MAX_S = 600.0
"""First and longest wait between activations of a host that keeps no mark of its boot: doubled
each time, so that a host which loses it at once does not raise its epoch at every poll."""


class Reports:
    """One monitor's reports."""

    def __init__(self, name: str, records: WatchRecords, backend: Backend) -> None:
        self._name = name
        self._records = records
        self._backend = backend
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

    def settled(self, host: WatchedHost) -> None:
        """A host in service carries the mark of its boot."""
        self._reboots.pop(host.id, None)

    def _context(self, host: WatchedHost) -> ActionContext:
        return ActionContext(
            principal=f"monitor:{self._name}",
            correlation_id=f"{host.id.hex}:{host.epoch}",
            reason="host failure",
            priority=PriorityClass.RECOVERY,
        )

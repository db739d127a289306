"""Which of our domains a host starts by itself at boot: one question more after each poll.

Invariants  No poll waits for it, is late or fails for it: it is asked once the reading is there,
            and a poll tells what was answered after the one before. Without an answer nothing is
            known, which warns of nothing and takes no warning back. It is not asked where a call
            hangs already, and after a failure only `AGAIN_S` later: it cannot use up the threads
            that the polls need.
Races       It has the turn of its host meanwhile, so that no poll stands behind it on a connection
            that is given up: the next one opens another.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import libvirt
import structlog

from domain.autostart import counts
from domain.errors import EngineError
from drivers.libvirt_domains import CURRENT, generation_of
from drivers.libvirt_lane import Lane, Threads

log = structlog.get_logger(__name__)

ASK_S = 0.5
"""How long the answer may take. Higher: where it hangs, the next poll has to wait for its turn.
Lower: a busy libvirtd loses its kept connection for it."""

AGAIN_S = 600.0
"""After a failure. Higher: autostart is noticed later there. Lower: a libvirtd that hangs at this
alone is connected to more often."""

READ_AGAIN_S = 10.0
"""How long the marks of the same domains are believed. Higher: a mark that was removed by hand is
noticed later. Lower: a host with many foreign domains that start is asked more after each poll."""


BELIEVED_S = 15.0
"""How long an answer is told: longer than the slowest poll takes. Higher: a host that this process
did not poll for a while is told of as it was. Lower: what is late is told as not known."""


@dataclass(frozen=True)
class _Known:
    """What was read of one host: the domains that start there, and the names of ours."""

    started: frozenset[bytes]
    ours: tuple[str, ...]
    read_at_s: float
    asked_at_s: float


class AutostartReader:
    """Asks over the kept connections of one hypervisor."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._known: dict[str, _Known] = {}
        self._not_before_s: dict[str, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def known(self, uri: str) -> tuple[str, ...] | None:
        """Names of ours that start by themselves, as just answered; None where that failed."""
        found, now_s = self._known.get(uri), asyncio.get_running_loop().time()
        return None if found is None or now_s - found.asked_at_s > BELIEVED_S else found.ours

    def begin(self, uri: str, lane: Lane | None, done: Callable[[], None]) -> None:
        """Ask, apart; `done` is called at the end, whatever comes of it. No lane: forgotten."""
        now_s = asyncio.get_running_loop().time()
        early = now_s < self._not_before_s.get(uri, now_s)
        if lane is None or early or self._threads.hung().get(lane.host):
            done()
            return
        task = asyncio.create_task(self._ask(uri, lane, now_s))
        self._asking.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, done))

    async def close(self) -> None:
        """Wait for what is being asked, which is short."""
        if self._asking:
            await asyncio.wait(self._asking)

    def forget(self, uri: str) -> None:
        """The host is polled no more. Idempotent."""
        self._known.pop(uri, None)
        self._not_before_s.pop(uri, None)

    def _ended(self, task: "asyncio.Task[None]", done: Callable[[], None]) -> None:
        self._asking.discard(task)
        done()

    async def _ask(self, uri: str, lane: Lane, now_s: float) -> None:
        known = self._known.get(uri)
        if known is not None and now_s - known.read_at_s >= READ_AGAIN_S:
            known = None
        try:
            self._known[uri] = await lane.run(lambda c, _ticket: _read(c, known, now_s), ASK_S)
        except EngineError as error:
            log.info("autostart not read", host=lane.host, code=error.code, why=error.detail)
        except Exception:  # a defect here must not end in silence, nor be met at every poll
            log.exception("autostart not read", host=lane.host)
        else:
            return
        self._known.pop(uri, None)
        self._not_before_s[uri] = now_s + AGAIN_S


def _read(connection: libvirt.virConnect, known: _Known | None, now_s: float) -> _Known:
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    started = frozenset(domain.UUID() for domain in domains)
    if known is not None and known.started == started:
        return replace(known, asked_at_s=now_s)
    ours = (domain.name() for domain in domains if _is_ours(domain))
    return _Known(started, tuple(sorted(ours)), now_s, now_s)


def _is_ours(domain: libvirt.virDomain) -> bool:
    try:
        return counts(autostart=True, generation=generation_of(domain, CURRENT))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise

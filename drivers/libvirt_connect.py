"""Opening a libvirt connection with a deadline: one lane, connected, with keep-alive.

Keep-alive needs libvirt's event loop, which runs in one daemon thread of the process and has to be
registered before the first connection is made.

Races  Two openings to one address run one after the other, because the sockets of an opening are
       found by comparing what was there before; whoever waits for its turn uses up its deadline.
"""

import asyncio
import threading
from collections import defaultdict
from functools import partial

import libvirt
import structlog

from domain.errors import NoAnswer
from drivers.host_uri import HostUri
from drivers.libvirt_lane import Lane, Threads
from drivers.libvirt_sockets import Address, hang_up, reach, resolve, sockets_to

KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 3
"""A connection without an answer for 4 s (interval x (count + 1)) is ended by libvirt.

Higher: calls to a silent host hang for longer, where their deadline allows it. Lower: a host that
is only busy loses its connections.
"""

log = structlog.get_logger(__name__)
_event_loop_lock = threading.Lock()
_event_loop: threading.Thread | None = None


def start_event_loop() -> None:
    """Start libvirt's event loop and silence its printing to stderr; idempotent."""
    global _event_loop
    with _event_loop_lock:
        if _event_loop is None:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            _event_loop = threading.Thread(target=_run_events, name="libvirt events", daemon=True)
            _event_loop.start()


def _run_events() -> None:
    pause = threading.Event()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.error("libvirt event loop failed", error=str(error))
            pause.wait(1.0)  # A loop that fails at once must not take the processor.


class Connector:
    """Opens lanes; one for each event loop of the process."""

    def __init__(self, threads: Threads) -> None:
        start_event_loop()
        self.threads = threads
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self, target: HostUri, deadline_s: float) -> Lane:
        """A connected lane within `deadline_s` seconds, else NoAnswer or Refused.

        Nothing is left behind on an error, except a thread that hangs (see `Threads.hung`).
        """
        end = asyncio.get_running_loop().time() + deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._turns[target.label].acquire()
        except TimeoutError:
            detail = f"{target.label}: another connection is still being made"
            raise NoAnswer("HYPERVISOR_NO_ANSWER", detail, host=target.label) from None
        try:
            return await self._connect(target, end)
        finally:
            self._turns[target.label].release()

    async def _connect(self, target: HostUri, end: float) -> Lane:
        clock = asyncio.get_running_loop().time
        lane = Lane(target.label, self.threads)
        addresses: tuple[Address, ...] = ()
        before: frozenset[int] = frozenset()
        try:
            if target.transport:
                look_up = partial(resolve, target.host, target.port)
                addresses = await lane.run(lambda _connection, _ticket: look_up(), end - clock())
                await reach(target.label, addresses, end - clock())
                before = sockets_to(addresses)
                lane.hang_up = lambda: hang_up(sockets_to(addresses) - before)
            await lane.open(partial(_open, target), end - clock())
        except BaseException:
            lane.discard()
            raise
        if target.transport:
            lane.hang_up = partial(hang_up, sockets_to(addresses) - before)
        return lane


def _open(target: HostUri) -> libvirt.virConnect:
    connection = libvirt.open(target.uri)
    if target.transport:
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    return connection

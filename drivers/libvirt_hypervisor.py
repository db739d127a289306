"""Hosts reached by libvirt URI: fresh sessions for changes, kept connections for polls.

Invariants  Every call ends by its deadline. A connection that failed is never used again.
Races       Polls of one URI run one after the other; one that cannot begin in time is NoAnswer.
            What is asked after a poll has its turn too, for up to `libvirt_autostart.ASK_S`.
"""

import asyncio
import ipaddress
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import libvirt

from domain.errors import NoAnswer
from domain.readings import HostReading, Knock
from drivers.host_uri import HostUri, parse_host_uri
from drivers.libvirt_autostart import AutostartReader
from drivers.libvirt_connect import Connector
from drivers.libvirt_lane import HUNG_PER_HOST_MAX, THREADS_MAX, Lane, Threads, Ticket
from drivers.libvirt_machine import machine_of
from drivers.libvirt_poll import read_host
from drivers.libvirt_session import LibvirtSession
from drivers.libvirt_sockets import Address, knock, no_knock, resolve

CLOSE_DEADLINE_S = 2.0
"""How long the end of a session waits for a polite close before it leaves it to the thread."""


class LibvirtHypervisor:
    """Fits `Hypervisor`. Belongs to one event loop; `close` it at the end."""

    def __init__(
        self, *, threads_max: int = THREADS_MAX, hung_per_host_max: int = HUNG_PER_HOST_MAX
    ) -> None:
        self._threads = Threads(threads_max, hung_per_host_max)
        # Names are looked up apart, or a hung libvirtd could use up the threads of its own knock.
        self._lookups = Threads(threads_max, hung_per_host_max)
        self._connector = Connector(self._threads)
        self._autostart = AutostartReader(self._threads)
        self._kept: dict[str, Lane] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def session(self, uri: str, deadline_s: float) -> AsyncIterator[LibvirtSession]:
        """Open a fresh connection; it and each call on it have `deadline_s` seconds.

        Invalid: the URI. NoAnswer: not open in time. Conflict: libvirtd wants no part of us.
        """
        lane = await self._connector.open(parse_host_uri(uri), deadline_s)
        try:
            yield LibvirtSession(lane, deadline_s)
        finally:
            await lane.close(min(deadline_s, CLOSE_DEADLINE_S))

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read a host over its kept connection, at most `deadline_s` seconds, opening included.

        Running domains only, foreign ones included. Errors as for `session`; after one, the next
        poll opens a new connection. Which of ours start at boot is as was answered after the last.
        """
        target = parse_host_uri(uri)
        clock = asyncio.get_running_loop().time
        end = clock() + deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._turns[uri].acquire()
        except TimeoutError:
            detail = f"{target.label}: an earlier poll still waits"
            raise NoAnswer("HYPERVISOR_NO_ANSWER", detail, host=target.label) from None
        try:
            reading = await self._read(uri, target, end)
        except BaseException:
            self._drop(uri)
            self._turns[uri].release()
            raise
        known = self._autostart.known(uri)
        self._autostart.begin(uri, self._kept.get(uri), self._turns[uri].release)
        return reading.model_copy(update={"autostart": known})

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """The UUID that libvirtd has from the firmware, over a fresh connection.

        None when it tells none. Errors as for `session`.
        """
        lane = await self._connector.open(parse_host_uri(uri), deadline_s)
        try:
            told = await lane.run(_capabilities, deadline_s)
        finally:
            await lane.close(min(deadline_s, CLOSE_DEADLINE_S))
        return machine_of(told)

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """Connect to the host's port and hang up: a kernel that reacts is a sign of life.

        Over ssh the door is that of sshd. `test:///` is a driver inside this process, which always
        ANSWERS. libvirt is not asked, so a frozen libvirtd is OPEN, and neither its hung calls nor
        connections that are being made stand in the way. Looking a name up and listening have
        `deadline_s` seconds each, so a slow name service shortens no silence. Invalid: the URI.
        NoAnswer (KNOCK_NOT_POSSIBLE): the name is not known in time, or nothing could be sent.
        """
        target = parse_host_uri(uri)
        if not target.transport:
            return Knock.ANSWERS
        try:
            addresses = await self._addresses(target, deadline_s)
        except NoAnswer as error:
            raise no_knock(target.label, error.detail) from None
        return await knock(target.label, addresses, deadline_s)

    async def forget(self, uri: str) -> None:
        """Close the kept connection of a host that is polled no more. Idempotent."""
        self._autostart.forget(uri)
        if lane := self._kept.pop(uri, None):
            await lane.close(CLOSE_DEADLINE_S)

    async def close(self) -> None:
        """Close every kept connection. Idempotent."""
        await self._autostart.close()
        await asyncio.gather(*(self.forget(uri) for uri in tuple(self._kept)))

    def hung_threads(self) -> dict[str, int]:
        """How many threads are stuck in libvirt, by host: a figure to watch."""
        return self._threads.hung()

    def threads(self) -> int:
        """How many connections have a thread, hung ones included."""
        return self._threads.running()

    async def _addresses(self, target: HostUri, deadline_s: float) -> tuple[Address, ...]:
        look_up = partial(resolve, target.host, target.port)
        try:
            ipaddress.ip_address(target.host)
        except ValueError:
            lane = Lane(target.label, self._lookups)
            try:
                return await lane.run(lambda _connection, _ticket: look_up(), deadline_s)
            finally:
                lane.discard()
        return look_up()  # Digits need no name service, so nothing blocks.

    async def _read(self, uri: str, target: HostUri, end: float) -> HostReading:
        clock = asyncio.get_running_loop().time
        kept = self._kept.get(uri)
        if kept is not None and not kept.dead:
            try:
                return await kept.run(_read_host, end - clock())
            except NoAnswer:
                # It may have ended since the last poll, when libvirtd was restarted: a new
                # connection tells that from a silent host, in what is left of the deadline.
                if clock() >= end:
                    raise
            self._drop(uri)
        fresh = self._kept[uri] = await self._connector.open(target, end - clock())
        return await fresh.run(_read_host, end - clock())

    def _drop(self, uri: str) -> None:
        if lane := self._kept.pop(uri, None):
            lane.discard()


def _read_host(connection: libvirt.virConnect, _ticket: Ticket) -> HostReading:
    return read_host(connection)


def _capabilities(connection: libvirt.virConnect, _ticket: Ticket) -> str:
    return str(connection.getCapabilities())

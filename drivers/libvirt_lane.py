"""One thread for one libvirt connection, and a limit on how many there are.

libvirt's calls block, and a hung one cannot be interrupted. So each connection has a thread of its
own, and a hung call costs that connection only: at the deadline the lane is given up for good, its
sockets are hung up (which frees the thread at once where there are sockets), and the caller opens
another. A shared pool would let one hung host starve the others.

Invariants  A lane that was given up sends nothing more: the thread asks its ticket just before
            each mutating call, under the lock that giving up takes. Once sent, never `NoAnswer`.
            The thread closes its connection itself, so a hung close blocks nobody.
Races       An answer that arrives as the deadline passes is dropped: the caller was told already.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import libvirt

from domain.errors import EngineError, NoAnswer
from drivers.libvirt_errors import answered, is_lost, lost, not_opened

T = TypeVar("T")

THREADS_MAX = 512
"""Connections of one process, open or hung.

Higher: more memory (about 0.1 MiB a thread) when a whole site hangs. Lower: a big cluster's polls
and sessions are refused in peace time.
"""

HUNG_PER_HOST_MAX = 4
"""Threads of one host that may be stuck in libvirt before new calls to it are refused at once.

Higher: a hung host takes more of THREADS_MAX. Lower: a host that hung briefly is refused sooner.
"""


class GivenUp(Exception):
    """Inside a lane's thread: the caller has gone, send nothing more."""


class Ticket:
    """Whether one call may still change something, and whether it did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._void = False
        self._sent = False

    def sending(self) -> None:
        """Say that the next libvirt call changes something; GivenUp when it is too late."""
        with self._lock:
            if self._void:
                raise GivenUp
            self._sent = True

    def give_up(self) -> bool:
        """Allow no more changes; whether one was sent."""
        with self._lock:
            self._void = True
            return self._sent

    @property
    def sent(self) -> bool:
        """Whether a change was sent."""
        with self._lock:
            return self._sent


class Threads:
    """Counts the threads of one driver; safe to use from any thread."""

    def __init__(self, limit: int = THREADS_MAX, hung_per_host: int = HUNG_PER_HOST_MAX) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._hung_per_host = hung_per_host
        self._running = 0
        self._hung: Counter[str] = Counter()

    def enter(self, host: str) -> None:
        """Take a place for a new thread; NoAnswer when the limit is reached."""
        with self._lock:
            if self._hung[host] >= self._hung_per_host:
                raise NoAnswer(
                    "HYPERVISOR_HUNG",
                    f"{host}: {self._hung[host]} earlier calls still hang, no more are made",
                    host=host,
                    hung=self._hung[host],
                )
            if self._running >= self._limit:
                raise NoAnswer(
                    "HYPERVISOR_THREADS_USED_UP",
                    f"{host}: all {self._limit} connections are in use,"
                    f" {self._hung.total()} of them hang",
                    host=host,
                    limit=self._limit,
                    hung=self._hung.total(),
                )
            self._running += 1

    def hang(self, host: str) -> None:
        """Count a thread as hung."""
        with self._lock:
            self._hung[host] += 1

    def leave(self, host: str, hung: bool) -> None:
        """Give a place back."""
        with self._lock:
            self._running -= 1
            if hung:
                self._hung[host] -= 1

    def running(self) -> int:
        """How many threads there are, hung ones included."""
        with self._lock:
            return self._running

    def hung(self) -> dict[str, int]:
        """How many threads hang in libvirt, by host."""
        with self._lock:
            return {host: count for host, count in self._hung.items() if count}


@dataclass(frozen=True)
class _Job:
    work: Callable[[Any, Ticket], Any]
    ticket: Ticket
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]

    def deliver(self, value: Any, error: BaseException | None) -> None:
        # A closed loop has no caller left that could wait for the answer.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)


class Lane:
    """A connection's thread; `open` comes first."""

    def __init__(self, host: str, threads: Threads) -> None:
        threads.enter(host)
        self.host = host
        self.hang_up: Callable[[], None] = lambda: None  # Frees the thread, where that is possible.
        self._connection: libvirt.virConnect | None = None  # Touched by the thread only.
        self._threads = threads
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._hung = False
        self._ended = False
        self._why_dead = ""
        threading.Thread(target=self._serve, name=f"libvirt {host}", daemon=True).start()

    @property
    def dead(self) -> bool:
        """Whether every further call is refused."""
        return bool(self._why_dead)

    async def open(self, opener: Callable[[], libvirt.virConnect], deadline_s: float) -> None:
        """Make the connection that this lane serves; errors as for `run`."""

        def work(_none: Any, _ticket: Ticket) -> None:
            self._connection = opener()

        await self.run(work, deadline_s)

    async def run(self, work: Callable[[Any, Ticket], T], deadline_s: float) -> T:
        """Run `work(connection, ticket)` in the thread, at most `deadline_s` seconds.

        NoAnswer or OutcomeUnknown (a change was sent) when there is no answer; the lane is dead
        from then on. Being cancelled kills the lane too: nobody knows what the thread still does.
        """
        if self.dead:
            raise lost(self.host, False, f"the connection is gone: {self._why_dead}")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        job = _Job(work, Ticket(), loop, answer)
        self._jobs.put(job)
        try:
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            why = f"no answer within {deadline_s:.3g} s"
            raise lost(self.host, self._abandon(job.ticket, why), why) from None
        except asyncio.CancelledError:
            self._abandon(job.ticket, "a call was cancelled")
            raise

    def discard(self) -> None:
        """Allow no more calls and let the thread close the connection by itself. Idempotent."""
        self._die("it was discarded")

    async def close(self, deadline_s: float) -> None:
        """Close the connection; a close that hangs is left to the thread. Idempotent."""
        if self.dead:
            return
        with suppress(NoAnswer):
            await self.run(lambda _connection, _ticket: self._close_connection(), deadline_s)
        self._die("it was closed")

    def _abandon(self, ticket: Ticket, why: str) -> bool:
        sent = ticket.give_up()
        with self._lock:
            if not self._ended and not self._hung:
                self._hung = True
                self._threads.hang(self.host)
        self._die(why)
        self.hang_up()
        return sent

    def _die(self, why: str) -> None:
        self._why_dead = self._why_dead or why
        self._jobs.put(None)

    def _serve(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._do(job)
        finally:
            self._close_connection()
            with self._lock:
                self._ended = True
                self._threads.leave(self.host, self._hung)

    def _do(self, job: "_Job") -> None:
        # No traceback leaves the thread: its frames would keep libvirt's objects, and with them
        # the connection, open for as long as somebody holds the exception.
        try:
            value = job.work(self._connection, job.ticket)
        except GivenUp:
            return
        except libvirt.libvirtError as error:
            job.deliver(None, self._translated(error, job.ticket.sent))
        except EngineError as error:
            error.__context__ = error.__cause__ = None
            job.deliver(None, error.with_traceback(None))
        except Exception as error:  # noqa: BLE001 - it is raised where the caller waits
            job.deliver(None, error)
        else:
            job.deliver(value, None)

    def _translated(self, error: libvirt.libvirtError, sent: bool) -> EngineError:
        if self._connection is None:
            return not_opened(self.host, error)
        if not is_lost(error, self._alive()):
            return answered(self.host, sent, error)
        why = str(error.get_error_message() or error)
        self._die(why)
        return lost(self.host, sent, why)

    def _alive(self) -> bool:
        try:
            return bool(self._connection and self._connection.isAlive())
        except libvirt.libvirtError:
            return False

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is lost already needs no closing, and the object is released either way.
            with suppress(libvirt.libvirtError):
                connection.close()

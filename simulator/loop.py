"""An event loop in virtual time, with processes that can be killed and frozen.

Nothing waits: when no callback is ready, the clock jumps to the next timer. Callbacks run in the
order in which they became ready, so one seed gives one order of events.

A process is a label that callbacks carry in their context, inherited by every task that they
begin. A killed process's callbacks are dropped: its coroutines stop where they are, as under
SIGKILL, and no `finally` of theirs runs before the simulation is over. A frozen one's are kept
until it is thawed, as under SIGSTOP.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
"""What wall clocks show at virtual second 0."""


CLEARING_ROUNDS = 10
"""How often what ending tasks begin is ended in its turn."""


SWEEP_FROM = 1000
"""How many tasks a loop keeps before it looks which of them are done."""

CLEARING_ROUNDS = 5


class Stalled(RuntimeError):
    """Nothing will ever happen again: every task waits, and no timer runs."""


class Process:
    """One process of the engine. Once dead it stays dead; its successor is another one."""

    def __init__(self, name: str, machine: str, number: int = 0) -> None:
        self.name = name
        self.title = f"{name}#{number}"  # no other process of a simulation has it
        self.machine = machine
        self.dead = False
        self.frozen = False
        self.clock_skew = timedelta(0)  # of its machine's wall clock
        self._held: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return f"{self.name}@{self.machine}"

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True

    def thaw(self, loop: "VirtualLoop") -> None:
        """SIGCONT: what was held back happens now."""
        self.frozen = False
        if not self.dead:
            loop.run_again(self.let_go())

    def takes(self, handle: asyncio.Handle) -> bool:
        """Whether a callback of this process may run now; otherwise it is kept, never run again
        unless the process is thawed."""
        if self.dead or self.frozen:
            self._held.append(handle)
        return not (self.dead or self.frozen)

    def let_go(self) -> list[asyncio.Handle]:
        """What was kept, in its order."""
        held, self._held = self._held, []
        return held


CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def nobody() -> contextvars.Context:
    """A context of no process of the engine's: it outlives them all.

    A copy, never an empty one: what begins in it, be it a process that starts again, keeps the
    simulation's clock and ids.
    """
    context = contextvars.copy_context()
    context.run(CURRENT.set, None)
    return context


_Base: Any = asyncio.BaseEventLoop
"""Typed as anything: its ready queue and its timers are no part of its stub."""


class VirtualLoop(_Base):  # type: ignore[misc]
    """See the module."""

    def __init__(self, at_s: float = 0.0) -> None:
        super().__init__()
        self._now_s = at_s
        self._timers_set = 0
        self._processes: dict[Process, None] = {}
        self._tasks: list[asyncio.Task[Any]] = []  # a loop itself keeps no task that waits
        self._sweep_at = SWEEP_FROM
        self._clock_resolution = 1e-9
        self._selector = _Nothing(self)
        self.over = False  # what is left of dead processes is being cleared away
        self.set_exception_handler(self._keep_error)
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._now_s

    def now(self) -> datetime:
        """The time of day on the clock of the current process's machine."""
        process = CURRENT.get()
        skew = timedelta(0) if process is None else process.clock_skew
        return EPOCH + timedelta(seconds=self._now_s) + skew

    def spawn(
        self,
        process: Process,
        work: Coroutine[Any, Any, Any],
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Run something as a part of a process, in a context of its own."""
        self._processes[process] = None
        context = contextvars.copy_context() if context is None else context
        context.run(CURRENT.set, process)
        return self.create_task(work, context=context)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """As in every loop, and kept: a task that only its own cycle of references holds would
        be collected at a moment of the collector's choice, with its `finally` blocks.
        """
        task: asyncio.Task[Any] = super().create_task(coro, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > self._sweep_at:
            self._tasks = [each for each in self._tasks if not each.done()]
            self._sweep_at = 2 * len(self._tasks) + SWEEP_FROM
        return task

    def spawn_soon(self, process: Process, do: Callable[[], None]) -> None:
        """Call something soon as a part of a process."""
        context = contextvars.copy_context()
        context.run(CURRENT.set, process)
        self.call_soon(do, context=context)

    def run_again(self, handles: list[asyncio.Handle]) -> None:
        """Put back what a frozen process had kept, in its order."""
        self._ready.extend(handles)

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As in every loop; the callback belongs to a process."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in every loop; timers of one moment fire in the order in which they were set."""
        self._timers_set += 1
        timer = _Timer(self._timers_set, when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def advance(self, seconds: float | None) -> None:
        """Let time pass, up to the next timer; Stalled when there is none."""
        if self._scheduled:
            self._now_s = max(self._now_s, self._scheduled[0]._when)
        elif seconds is None:
            raise Stalled(f"nothing is left to happen at {self._now_s:.3f} s")

    def clear(self) -> None:
        """End every task that is left, of dead processes too, and close."""
        self.over = True
        for process in self._processes:
            # A task that waits for a callback which was dropped could not even be cancelled.
            self.run_again(process.let_go())
        for _round in range(CLEARING_ROUNDS):
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            # What a cancelled task begins on its way out is let run before it is cancelled too.
            self.run_until_complete(_settled(left))
        self.close()

    def _keep_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def _process_events(self, event_list: list[Any]) -> None:
        return

    def _write_to_self(self) -> None:
        return


class _Nothing:
    """In the place of a selector: there are no files and sockets, only time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop.advance(timeout)
        return []


async def _settled(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(CLEARING_ROUNDS):
        await asyncio.sleep(0)


def _runs(handle: Any, loop: VirtualLoop) -> bool:
    process = handle._context.get(CURRENT)
    return process is None or loop.over or process.takes(handle)


_AnyHandle: Any = asyncio.Handle
_AnyTimer: Any = asyncio.TimerHandle


class _Handle(_AnyHandle):  # type: ignore[misc]
    def _run(self) -> None:
        if _runs(self, self._loop):
            super()._run()


class _Timer(_AnyTimer):  # type: ignore[misc]
    def __init__(self, number: int, when: float, *given: Any) -> None:
        super().__init__(when, *given)
        self._turn = (when, number)

    def __lt__(self, other: Any) -> bool:
        return bool(self._turn < other._turn)

    def _run(self) -> None:
        if _runs(self, self._loop):
            super()._run()

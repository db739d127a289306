"""Asks the power controllers of a host whose poll is late, before that counts as missed.

A poll answers in milliseconds and may take a second or more before it is missed. A host that lost
its power never answers, and its controller says so in that time: asked early, it ends the waiting.
Whatever else a controller says changes nothing; the poll goes on to its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from activities.ports import PowerSwitch
from activities.power import Said, ask, proves_off
from domain.inventory import HostState
from domain.profiles import Timing
from engine.records.watching import WatchedHost

LATE_S = 0.25
"""How long a poll may take before its host's controllers are asked. Higher: a power cut is noticed
later. Lower: a busy host's controllers are asked in vain."""

AGAIN_S = 10.0
"""How often at most the controllers of one host are asked so. Higher: the second of two power cuts
in a row is noticed by its missed poll. Lower: a host that is slow for hours bothers its BMC."""


@dataclass
class Late:
    """One poll that has not answered yet; `end` once it has, or was missed."""

    timer: asyncio.TimerHandle | None = None
    over: bool = False

    def end(self) -> None:
        """Nobody is asked any more, and what is said from now on is not heard."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()


class EarlyQuestions:
    """One monitor's questions about polls that are late.

    `off`: told of a host that its controllers prove to be off while its poll is still unanswered.
    """

    def __init__(
        self, power: PowerSwitch, off: Callable[[WatchedHost, Timing, Said], Awaitable[None]]
    ) -> None:
        self._power = power
        self._off = off
        self._asked_s: dict[UUID, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def about(self, host: WatchedHost, timing: Timing) -> Late:
        """A poll of this host begins."""
        late = Late()
        if host.judged and host.state is HostState.UP and host.devices:
            loop = asyncio.get_running_loop()
            late.timer = loop.call_later(LATE_S, self._begin, host, timing, late)
        return late

    def _begin(self, host: WatchedHost, timing: Timing, late: Late) -> None:
        now_s = asyncio.get_running_loop().time()
        asked_s = self._asked_s.get(host.id)
        if asked_s is not None and now_s < asked_s + AGAIN_S:
            return
        self._asked_s[host.id] = now_s
        task = asyncio.get_running_loop().create_task(self._ask(host, timing, late))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, host: WatchedHost, timing: Timing, late: Late) -> None:
        said = await ask(self._power, host.devices)
        if not late.over and proves_off(host.devices, said):
            await self._off(host, timing, said)

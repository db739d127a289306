"""One call over a network: it arrives or not, is carried out, and its answer comes back or not.

Without latency all of it happens at once. With latency a silent peer costs the caller its whole
deadline, as it really does.

Invariants  A call that arrived is carried out once, even when its caller is dead, frozen or has
            given up by then. Not sent is NoAnswer, and then nothing was or will be done. Sent and
            not answered is OutcomeUnknown for a change, and it may still be carried out later.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from domain.errors import EngineError
from simulator.world.centre import DataCentre
from simulator.world.latency import CHANGING, Call, Latency
from simulator.world.network import Network

T = TypeVar("T")


class Peer(Protocol):
    """The far end of calls."""

    @property
    def awake(self) -> bool:
        """Whether something comes back from a call that comes in now."""
        ...

    @property
    def slowness(self) -> float:
        """How many times as long everything takes."""
        ...

    def take(self, work: Callable[[], None]) -> None:
        """Carry work out that has come in: now, later or never."""
        ...


@dataclass(frozen=True)
class Line:
    """Calls of one machine to one peer, which the network knows as `endpoint`."""

    centre: DataCentre
    network: Network
    machine: str
    endpoint: str
    peer: Peer
    lost: Callable[[bool], EngineError]
    """The error for a call without an answer; True for a change whose outcome is not known."""

    async def call(self, call: Call, deadline_s: float, act: Callable[[], T]) -> T:
        """Have the peer act, and give its answer; what it raises is an answer, too."""
        latency = self.centre.latency
        if latency is None:
            return self._at_once(call, act)
        return await self._in_time(call, deadline_s, act, latency)

    def _at_once(self, call: Call, act: Callable[[], T]) -> T:
        if not self._reaches:
            raise self._unanswered(call, sent=False)
        outcome = _outcome(act)
        if not self._is_heard:
            raise self._unanswered(call, sent=True)
        return outcome.unpacked()

    async def _in_time(
        self, call: Call, deadline_s: float, act: Callable[[], T], latency: Latency
    ) -> T:
        if not self._reaches:
            await asyncio.sleep(deadline_s)
            raise self._unanswered(call, sent=False)
        there_s, back_s = (part * self.peer.slowness for part in latency.draw(call))
        answer: asyncio.Future[_Outcome[T]] = asyncio.get_running_loop().create_future()
        later = self.centre.happenings.later

        def arrive() -> None:
            if self.network.carries(self.machine, self.endpoint):
                self.peer.take(work)

        def work() -> None:
            outcome = _outcome(act)
            later(back_s, lambda: come_back(outcome))

        def come_back(outcome: _Outcome[T]) -> None:
            if self._is_heard and not answer.done():
                answer.set_result(outcome)

        later(there_s, arrive)
        try:
            async with asyncio.timeout(deadline_s):
                outcome = await answer
        except TimeoutError:
            raise self._unanswered(call, sent=True) from None
        return outcome.unpacked()

    @property
    def _reaches(self) -> bool:
        return self.peer.awake and self.network.carries(self.machine, self.endpoint)

    @property
    def _is_heard(self) -> bool:
        return self.peer.awake and self.network.carries(self.endpoint, self.machine)

    def _unanswered(self, call: Call, *, sent: bool) -> EngineError:
        changing = call in CHANGING
        if changing:
            self.centre.happenings.tell(
                "call.unanswered", machine=self.machine, to=self.endpoint, call=call, sent=sent
            )
        return self.lost(sent and changing)


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What an act gave: a value, or the engine's error."""

    values: tuple[T, ...]
    error: EngineError | None

    def unpacked(self) -> T:
        if self.error is not None:
            raise self.error
        return self.values[0]


def _outcome(act: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome((act(),), None)
    except EngineError as error:
        return _Outcome((), error)

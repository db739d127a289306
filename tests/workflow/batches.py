"""Fake rows under real workflows: operations that keep a diary, and children that end as told."""

from collections import Counter
from uuid import UUID

from activities.batches import BatchProgress
from domain.operations import Outcome


class Diary:
    """Implements the port of `activities.operations`: what each operation was said to be."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    async def claim(self, operation_id: UUID, attempt: int, run_id: str) -> None:
        """Any run may have it."""
        self.entries.append("running")

    async def wait(self, operation_id: UUID, code: str | None, detail: str) -> None:
        """Waiting for something, or running again."""
        self.entries.append("running" if code is None else f"waiting: {code}")

    async def pause(self, operation_id: UUID, paused: bool) -> None:
        """Paused, or running again."""
        self.entries.append("paused" if paused else "running")

    async def close(self, outcome: Outcome) -> None:
        """Ended."""
        self.entries.append(str(outcome.state))


class Children:
    """Implements the port of `activities.batches`; a released child ends when the test says so.

    With `by_themselves` it has ended by the look after the one that released it.
    """

    def __init__(
        self,
        total: int,
        *,
        at_once: int = 10,
        failing: tuple[int, ...] = (),
        stop_on_error: bool = False,
        by_themselves: bool = True,
    ) -> None:
        self.states = ["held"] * total
        self.releases: Counter[int] = Counter()
        self.looks = 0
        self.most_open = 0
        self._at_once = at_once
        self._failing = failing
        self._stop_on_error = stop_on_error
        self._by_themselves = by_themselves

    def end(self, number: int) -> None:
        """One child ends, as it was meant to."""
        self.states[number] = "failed" if number in self._failing else "succeeded"

    async def advance(self, operation_id: UUID) -> BatchProgress:
        """Release, stop, count."""
        self.looks += 1
        if self._by_themselves:
            for number in self._in("open"):
                self.end(number)
        stopped = self._stop_on_error and "failed" in self.states
        if stopped:
            self._put("cancelled", self._in("held"))
        self._release()
        return self._count(stopped)

    async def cancel_rest(self, operation_id: UUID) -> str:
        """Cancel the held ones; the open ones are asked, and end."""
        held, asked = self._in("held"), self._in("open")
        self._put("cancelled", held + asked)
        return f"{len(held)} cancelled before they began, {len(asked)} asked to cancel"

    def _release(self) -> None:
        free = self._at_once - self.states.count("open")
        released = self._in("held")[:free]
        self.releases.update(released)
        self._put("open", released)
        self.most_open = max(self.most_open, self.states.count("open"))

    def _in(self, state: str) -> list[int]:
        return [number for number, found in enumerate(self.states) if found == state]

    def _put(self, state: str, numbers: list[int]) -> None:
        for number in numbers:
            self.states[number] = state

    def _count(self, stopped: bool) -> BatchProgress:
        counts = Counter(self.states)
        return BatchProgress(
            total=len(self.states),
            succeeded=counts["succeeded"],
            failed=counts["failed"],
            cancelled=counts["cancelled"],
            open=counts["open"],
            held=counts["held"],
            stopped=stopped,
        )

"""Waiting for an operation.

Nothing here changes it: an interrupt or a time-out only stops the watching. The engine's processes
may be restarted meanwhile; it is given up only after it has not answered for a while.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from cli.client import Api, pause
from cli.failures import Exit, Failure, Json, failure
from cli.progress import Plain, Progress, Screen, Silent

POLL_FIRST_S = 0.2
POLL_LAST_S = 1.0
POLL_GROWS = 1.1
"""Short operations are seen to end at once; long ones are asked for once a second."""

ENGINE_GONE_S = 30.0
"""How long the engine may not answer. Higher: a dead engine is reported later. Lower: a restart of
its processes ends the watching."""


@dataclass(frozen=True)
class Watch:
    """Asks for one operation until it has ended."""

    api: Api
    screen: Screen
    timeout_s: float = math.inf
    pause: Callable[[float], None] = pause
    monotonic: Callable[[], float] = time.monotonic

    def until_done(self, operation: Json) -> Json:
        """The ended operation; Failure for a time-out, an interrupt or an engine that is gone."""
        try:
            with self.screen:
                return self._poll(operation)
        except KeyboardInterrupt:
            raise detached(operation) from None

    def _poll(self, operation: Json) -> Json:
        end = self.monotonic() + self.timeout_s
        interval_s, heard = POLL_FIRST_S, self.monotonic()
        self.screen.update(operation)
        while not operation["done"]:
            left_s = end - self.monotonic()
            if left_s <= 0:
                raise self._timed_out(operation)
            self.pause(min(interval_s, left_s))
            interval_s = min(interval_s * POLL_GROWS, POLL_LAST_S)
            try:
                operation = self.api.get(f"/operations/{operation['id']}")
            except Failure as found:
                if found.code is not Exit.UNREACHABLE or self.monotonic() - heard > ENGINE_GONE_S:
                    raise
                self.screen.note("the engine does not answer; trying again")
                continue
            heard = self.monotonic()
            self.screen.update(operation)
        return operation

    def _timed_out(self, operation: Json) -> Failure:
        return failure(
            Exit.STILL_RUNNING,
            "WAIT_TIMED_OUT",
            f"{_named(operation)} is {operation['state']} after {self.timeout_s:g} s of waiting",
            next_step=f"holdfast op watch {operation['id']}",
            operation_id=operation["id"],
        )


def detached(operation: Json) -> Failure:
    """What an interrupt means while an operation is watched: it goes on."""
    return failure(
        Exit.INTERRUPTED,
        "DETACHED",
        f"{_named(operation)} is still running; it was not cancelled",
        next_step=f"holdfast op watch {operation['id']}",
        operation_id=operation["id"],
    )


def _named(operation: Json) -> str:
    return f"{operation['kind']} {operation['target_name']}"


def screen_for(progress: Progress, api: Api, *, as_json: bool) -> Screen:
    """The screen that was asked for; `auto` chooses by what standard error is."""
    if progress is Progress.AUTO:
        progress = Progress.NONE if as_json else Progress.LIVE
    if progress is Progress.LIVE and not sys.stderr.isatty():
        progress = Progress.PLAIN
    if progress is Progress.LIVE:
        from cli.live import LiveTree

        return LiveTree(api.now)
    return Plain(api.now) if progress is Progress.PLAIN else Silent()

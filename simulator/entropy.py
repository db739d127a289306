"""Where everything that is not decided comes from: one seed, and streams that do not disturb.

A stream is drawn by one subject alone, so that asking for one more latency does not change which
faults a seed brings.
"""

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from uuid import UUID

from engine.clock import clock_from
from simulator.loop import CURRENT, Process, VirtualLoop
from store.ids import ids_from


class Entropy:
    """The streams of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, subject: str) -> random.Random:
        """A fresh stream; the same subject gives the same one."""
        digest = sha256(f"{self.seed}/{subject}".encode()).digest()
        return random.Random(struct.unpack("<Q", digest[:8])[0])


class Ids:
    """UUIDv7s of each process's own clock; those of one process are in their order."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._last: dict[Process | None, int] = {}

    def __call__(self) -> UUID:
        """The next one; later than all before of its process, as the real source makes them."""
        whose = CURRENT.get()
        millis = int(self._loop.now().timestamp() * 1000)
        wanted = (millis << 80) | (self._rng.getrandbits(74))
        value = _versioned(max(wanted, self._last.get(whose, 0) + (1 << 16)))
        self._last[whose] = value
        return UUID(int=value)


def _versioned(value: int) -> int:
    value &= ~(0xF << 76) & ~(0x3 << 62) & ((1 << 128) - 1)
    return value | (0x7 << 76) | (0x2 << 62)


@contextmanager
def ruled_by(entropy: Entropy, loop: VirtualLoop) -> Iterator[None]:
    """Clock, ids and chance of all code that runs inside come from the simulation."""
    kept = random.getstate()
    random.seed(entropy.seed)
    try:
        with clock_from(loop.now), ids_from(Ids(loop, entropy.stream("ids"))):
            yield
    finally:
        random.setstate(kept)

"""Which monitors watch which host, and when a monitor is held to be gone: pure.

Highest random weight (Thaler and Ravishankar, 1998): each monitor and host have a weight, which is
a hash of both names, and the heaviest k monitors watch the host. Everybody who knows the monitors
works out the same, nothing is written down, and a monitor that joins or leaves moves no host but
those it takes or had. Two monitors of one machine fail together, so the heaviest of each machine
comes first; the second one of a machine is taken only where machines are fewer than k.

A monitor is gone when its number has stood still while somebody looked for long enough. Whoever
looks counts on its own monotonic clock, and each look speaks for a few seconds at most: who stood
still itself, or could not read, has seen nothing of the time between.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from uuid import UUID

from domain.base import Frozen

BEAT_S = 2.0
"""Longest pause between two signs of life of a monitor, and between its looks at the others.
Higher: it is missed later. Lower: monitors without work to do write more often."""

GONE_S = 10.0
"""How long a monitor's number stands still until others take its hosts: five beats. Higher: a
fence waits longer for the vote of one that died. Lower: one whose database is slow for a moment
loses its hosts, and with them its word."""

LOOK_S = 2 * BEAT_S
"""The most that one look at the others speaks for, one that came late by a beat included."""

TARGETS_MIN = 4
"""Hosts that a monitor watches at least, beyond its own if need be. With one host alone it could
not tell that host's silence from its own network's. Higher: small clusters are polled more."""


class Eye(Frozen):
    """One monitor as its row stands. `warm`: it has lived for a few rounds since it started."""

    name: str
    machine: str
    warm: bool = True
    gone: bool = False
    blind: bool = False  # it hears nothing at all, and mistrusts itself


class Pulse(Frozen):
    """What one monitor has seen of another's signs of life, on its own monotonic clock."""

    sequence: int
    looked_at_s: float
    still_s: float = 0.0

    @property
    def gone(self) -> bool:
        """Whether it has been still for too long."""
        return self.still_s >= GONE_S


def weight(host_id: UUID, monitor: str) -> int:
    """How heavy a monitor is for a host: the same in every process and on every machine."""
    return int.from_bytes(blake2b(host_id.bytes + monitor.encode(), digest_size=8).digest())


def seated(monitors: Iterable[Eye]) -> tuple[Eye, ...]:
    """The monitors that hosts are given to: those that live, have for a while, and see something.

    One that starts again and again is never given a host, so nobody waits for its word. Where
    there is none such, those that see nothing or have just started are better than nobody.
    """
    live = [eye for eye in monitors if not eye.gone]
    seeing = [eye for eye in live if not eye.blind]
    settled = [eye for eye in seeing if eye.warm]
    return tuple(settled or seeing or live)


def eyes_of(host_id: UUID, seats: Sequence[Eye], wanted: int) -> tuple[str, ...]:
    """The monitors that are to watch a host, heaviest first; all where there are no more."""
    ranked = sorted(seats, key=lambda eye: (weight(host_id, eye.name), eye.name), reverse=True)
    first: dict[str, str] = {}  # the heaviest of each machine
    for eye in ranked:
        first.setdefault(eye.machine, eye.name)
    others = (eye.name for eye in ranked if first[eye.machine] != eye.name)
    return (*first.values(), *others)[:wanted]


def targets_of(
    me: str, hosts: Sequence[UUID], monitors: Sequence[Eye], wanted: int
) -> frozenset[UUID]:
    """The hosts that a monitor is to watch: its own, and some to see where those are few."""
    seats = seated(monitors)
    own = frozenset(host for host in hosts if me in eyes_of(host, seats, wanted))
    others = sorted((h for h in hosts if h not in own), key=lambda h: weight(h, me), reverse=True)
    return own | frozenset(others[: max(0, TARGETS_MIN - len(own))])


def after_look(known: Pulse | None, sequence: int, now_s: float) -> Pulse:
    """What is known of a monitor after one more look at its row."""
    if known is None or known.sequence != sequence:
        return Pulse(sequence=sequence, looked_at_s=now_s)
    still_s = known.still_s + max(0.0, min(now_s - known.looked_at_s, LOOK_S))
    return Pulse(sequence=sequence, looked_at_s=now_s, still_s=still_s)

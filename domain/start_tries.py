"""Where a start that failed is tried next: other hosts first, then all of them anew, then no more.

Pure. A round tries the VM on one host and then on up to `max_relocate` others; it ends early where
no other host has room. After a round comes a wait, doubled each time, and all hosts may try again,
until there were `(1 + max_restart) * (1 + max_relocate)` tries. So a host that refuses one VM costs
seconds, and a VM that nobody can start is not tried for ever.
"""

from uuid import UUID

from domain.base import Frozen
from domain.orders import FailedTry, StartLimits, StartVmOrder
from domain.profiles import Policy

HOST_LEFT_SERVICE = "HOST_LEFT_SERVICE"
SHOWN_ELSEWHERE = "SHOWN_ELSEWHERE"
PLACED_ANEW = frozenset({HOST_LEFT_SERVICE, SHOWN_ELSEWHERE})
"""Codes of a start that is to look for a place anew, and of which no host has failed."""


class Tries(Frozen):
    """What was tried so far. `round` counts from 0."""

    limits: StartLimits
    failed: tuple[FailedTry, ...] = ()
    round: int = 0

    @staticmethod
    def of(order: StartVmOrder) -> "Tries":
        """Those of an earlier run of the same workflow, if any."""
        limits = order.limits or StartLimits()
        return Tries(limits=limits, failed=order.failed, round=order.round)

    def kept(self) -> dict[str, object]:
        """What the next run of the workflow has to know, as fields of its order."""
        return {"failed": self.failed, "round": self.round}

    @property
    def avoid(self) -> tuple[UUID, ...]:
        """Hosts that this round has tried already."""
        return tuple(one.host_id for one in self.failed if one.round == self.round)

    @property
    def round_is_over(self) -> bool:
        """Whether this round may try no other host."""
        return len(self.avoid) > self.limits.max_relocate

    @property
    def most(self) -> int:
        """How many tries there are in all."""
        return (1 + self.limits.max_restart) * (1 + self.limits.max_relocate)

    @property
    def spent(self) -> bool:
        """Whether there are no more tries."""
        return len(self.failed) >= self.most

    def after(self, host_id: UUID, host_name: str, code: str) -> "Tries":
        """One more failure."""
        one = FailedTry(host_id=host_id, host_name=host_name, code=code, round=self.round)
        return self.model_copy(update={"failed": (*self.failed, one)})

    def next_round(self) -> "Tries":
        """All hosts may try again."""
        return self.model_copy(update={"round": self.round + 1})

    def wait_s(self, policy: Policy) -> float:
        """How long to wait before the next round."""
        doublings = min(self.round, 10)
        return min(policy.start_again_s * 2.0**doublings, policy.start_again_max_s)

    def told(self) -> str:
        """The failures for people: each host once, with how often and its last code."""
        names = dict.fromkeys(one.host_name for one in self.failed)
        parts = []
        for name in names:
            here = [one for one in self.failed if one.host_name == name]
            times = f" {len(here)} times" if len(here) > 1 else ""
            parts.append(f"{name}{times} ({here[-1].code})")
        return ", ".join(parts)

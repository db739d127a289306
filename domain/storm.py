"""The guard against fencing storms: when not to cut power without a person.

It holds a fence, never a recovery that is already proven: reading a power controller as off cuts
nothing. Held is a waiting state with a reason, judged anew when the facts change.
"""

from enum import StrEnum

from domain.base import Frozen
from domain.fence_budgets import FenceBudget, SilentDomain
from domain.liveness import ROUNDING_S
from domain.profiles import Policy


class HoldReason(StrEnum):
    """Why a fence is held."""

    DISARMED = "DISARMED"
    VIEW_COLD = "VIEW_COLD"
    MANY_SILENT = "MANY_SILENT"
    BUDGET_SPENT = "BUDGET_SPENT"
    VOTES_MISSING = "VOTES_MISSING"
    VOTES_DISAGREE = "VOTES_DISAGREE"
    SILENT_TOO_SHORT = "SILENT_TOO_SHORT"
    NO_FENCE_DEVICE = "NO_FENCE_DEVICE"
    PROOFS_MISSING = "PROOFS_MISSING"
    OWN_HOST = "OWN_HOST"


EVEN_WHEN_OFF = frozenset({HoldReason.DISARMED, HoldReason.OWN_HOST, HoldReason.VOTES_DISAGREE})
"""Reasons that hold even a host whose power reads off. A controller that calls the engine's own
machine off is wrong: that the engine asks is a sign of life. So is what one monitor alone hears."""


APPROVABLE = frozenset({HoldReason.VIEW_COLD, HoldReason.MANY_SILENT, HoldReason.BUDGET_SPENT})
"""Reasons that a person may overrule: somebody can see that the hosts are really down. What is
configured, and what monitors contradict, is to be mended instead."""


class Approval(Frozen):
    """A person's leave to cut one host's power in one incident."""

    by: str
    reason: str


class Held(Frozen):
    """One reason to wait, with its numbers."""

    reason: HoldReason
    detail: str


class Vote(Frozen):
    """One live monitor's view of the host, already known to be fresh or not.

    Of a monitor that is to watch the host (`assigned`) and has not looked at it yet, it is neither
    fresh nor warm. One that is not to watch it any more, and still does, speaks for such a one.
    """

    monitor: str
    fresh: bool
    silent: bool
    others_seen: int  # other hosts that answered this monitor in the same round
    warm: bool
    silent_s: float  # how long it has watched this silence, by its own monotonic clock
    assigned: bool = True

    @property
    def hears(self) -> bool:
        """Whether it says that the host lives."""
        return self.fresh and not self.silent

    @property
    def accuses(self) -> bool:
        """Whether it says that the host is silent, and can tell that from its own network."""
        return self.fresh and self.silent and self.others_seen > 0


class FenceFacts(Frozen):
    """Everything the guard looks at, read once."""

    host: str
    armed: bool
    own_host: bool
    devices: int
    hosts: int
    hosts_silent: int
    budgets: tuple[FenceBudget, ...]
    votes: tuple[Vote, ...]
    approval: Approval | None = None
    domain: SilentDomain | None = None  # its rack or site, where that is silent as a whole
    disarmed: str = ""  # how, by whom and why automatic action is switched off


def why_held(facts: FenceFacts, policy: Policy) -> tuple[Held, ...]:
    """Every reason not to cut this host's power now; empty means go."""
    checks = (
        _config(facts, policy),
        _votes(facts),
        _short(facts, policy),
        _many_silent(facts),
        _budget(facts),
    )
    reasons = tuple(held for group in checks for held in group)
    if facts.approval is None:
        return reasons
    return tuple(held for held in reasons if held.reason not in APPROVABLE)


def _config(facts: FenceFacts, policy: Policy) -> tuple[Held, ...]:
    held = []
    if not facts.armed:
        how = f": {facts.disarmed}" if facts.disarmed else ""
        detail = f"automatic action is disarmed{how}"
        held.append(Held(reason=HoldReason.DISARMED, detail=detail))
    if facts.own_host:
        detail = f"the engine itself runs on {facts.host}"
        held.append(Held(reason=HoldReason.OWN_HOST, detail=detail))
    if facts.devices == 0:
        detail = f"{facts.host} has no fence device, so it cannot be proven off"
        held.append(Held(reason=HoldReason.NO_FENCE_DEVICE, detail=detail))
    elif facts.devices < (wanted := policy.timing.proofs_required):
        # A cut that cannot be certified would stop the guests and start them nowhere.
        detail = f"{facts.host} has {facts.devices} of the {wanted} fence devices that prove it off"
        held.append(Held(reason=HoldReason.PROOFS_MISSING, detail=detail))
    return tuple(held)


def answered(votes: tuple[Vote, ...]) -> bool:
    """Whether the host is heard by all that can tell: only then it has really come back."""
    return any(v.hears for v in votes) and not any(v.accuses and v.assigned for v in votes)


def speaking(votes: tuple[Vote, ...]) -> tuple[str, ...]:
    """The monitors whose silence a fence rests on, by name; its claim counts them once more."""
    joining = any(v.assigned and not v.warm for v in votes)
    return tuple(
        sorted(
            v.monitor
            for v in votes
            if v.fresh and v.silent and (v.assigned or (joining and _stands_in(v)))
        )
    )


def _votes(facts: FenceFacts) -> tuple[Held, ...]:
    assigned = [vote for vote in facts.votes if vote.assigned]
    if hearing := [vote.monitor for vote in facts.votes if vote.hears]:
        detail = f"{facts.host} still answers {_names(hearing)}"
        if accusing := [vote.monitor for vote in facts.votes if vote.accuses]:
            detail += f", and is silent to {_names(accusing)}"
        return (Held(reason=HoldReason.VOTES_DISAGREE, detail=detail),)
    late = [vote.monitor for vote in assigned if vote.warm and not vote.fresh]
    joining = [vote for vote in assigned if not vote.warm]
    if len(joining) > sum(_stands_in(vote) for vote in facts.votes):
        late += [vote.monitor for vote in joining if not vote.fresh]
    elif joining:
        joining = []
    if late or not assigned:
        fresh = sum(vote.fresh for vote in assigned)
        detail = f"{fresh} of {len(assigned)} monitors gave a fresh vote"
        if late:
            detail += f"; not {_names(late)}"
        return (Held(reason=HoldReason.VOTES_MISSING, detail=detail),)
    return (*_blind(assigned), *_cold(facts, joining))


def _short(facts: FenceFacts, policy: Policy) -> tuple[Held, ...]:
    """One that has just begun to miss the host is no second witness: it may be a single poll."""
    limit_s = policy.timing.non_responsive_after_s
    short = [v for v in facts.votes if v.warm and v.accuses and not silent_for(v.silent_s, policy)]
    if not short:
        return ()
    told = ", ".join(f"{v.silent_s:.1f} s to {v.monitor}" for v in short)
    detail = f"{facts.host} has been silent for {told}, of the {limit_s:.0f} s that it takes"
    return (Held(reason=HoldReason.SILENT_TOO_SHORT, detail=detail),)


def silent_for(silent_s: float, policy: Policy) -> bool:
    """Whether a silence that a monitor has watched has lasted as long as the profile asks for."""
    return silent_s >= policy.timing.non_responsive_after_s - ROUNDING_S


def _stands_in(vote: Vote) -> bool:
    """Whether it speaks for one that is to take its place and does not know the host yet."""
    return vote.accuses and vote.warm and not vote.assigned


def _blind(assigned: list[Vote]) -> tuple[Held, ...]:
    if blind := [vote.monitor for vote in assigned if vote.fresh and not vote.others_seen]:
        # Also where there is no other host to see: then nothing tells its silence from our own
        # network's, and its guests would have nowhere to go.
        detail = f"{_names(blind)} sees no other host either, so it mistrusts itself"
        return (Held(reason=HoldReason.MANY_SILENT, detail=detail),)
    return ()


def _cold(facts: FenceFacts, joining: list[Vote]) -> tuple[Held, ...]:
    if joining:
        names = _names([vote.monitor for vote in joining])
        detail = f"{names} began to watch {facts.host} too recently to judge"
        return (Held(reason=HoldReason.VIEW_COLD, detail=detail),)
    return ()


def _names(names: list[str]) -> str:
    return ", ".join(sorted(names))


def half_silent(silent: int, hosts: int) -> bool:
    """Whether so many hosts are silent that it is our own network until shown otherwise."""
    return silent > 0 and silent * 2 >= hosts


def _many_silent(facts: FenceFacts) -> tuple[Held, ...]:
    if half_silent(facts.hosts_silent, facts.hosts):
        detail = f"{facts.hosts_silent} of {facts.hosts} hosts are silent: our own network first"
        return (Held(reason=HoldReason.MANY_SILENT, detail=f"{detail}{_how_wide(facts)}"),)
    return ()


def _budget(facts: FenceFacts) -> tuple[Held, ...]:
    """Every budget that is spent, each a reason of its own; how wide the silence is, once."""
    spent = [budget.told() for budget in facts.budgets if budget.exhausted]
    told = [f"{one}{_how_wide(facts) if n == 0 else ''}" for n, one in enumerate(spent)]
    return tuple(Held(reason=HoldReason.BUDGET_SPENT, detail=detail) for detail in told)


def _how_wide(facts: FenceFacts) -> str:
    """What a person wants to know first: the feed or the switch of a rack, or a single host."""
    return "" if facts.domain is None else f"; {facts.domain.told()}"

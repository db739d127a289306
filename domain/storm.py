"""The guard against fencing storms: when not to cut power without a person.

It holds a fence, never a recovery that is already proven: reading a power controller as off cuts
nothing. Held is a waiting state with a reason, judged anew when the facts change.
"""

from enum import StrEnum

from domain.base import Frozen
from domain.fence_budgets import FenceBudget, SilentDomain
from domain.profiles import Policy


class HoldReason(StrEnum):
    """Why a fence is held."""

    DISARMED = "DISARMED"
    VIEW_COLD = "VIEW_COLD"
    MANY_SILENT = "MANY_SILENT"
    BUDGET_SPENT = "BUDGET_SPENT"
    VOTES_MISSING = "VOTES_MISSING"
    VOTES_DISAGREE = "VOTES_DISAGREE"
    NO_FENCE_DEVICE = "NO_FENCE_DEVICE"
    PROOFS_MISSING = "PROOFS_MISSING"
    OWN_HOST = "OWN_HOST"


EVEN_WHEN_OFF = frozenset({HoldReason.DISARMED, HoldReason.OWN_HOST})
"""Reasons that hold even a host whose power reads off. A controller that calls the engine's own
machine off is wrong: that the engine asks is a sign of life."""


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
    """One live monitor's view of the host, already known to be fresh or not."""

    monitor: str
    fresh: bool
    silent: bool
    others_seen: int  # other hosts that answered this monitor in the same round
    warm: bool


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
        _view(facts),
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


def _votes(facts: FenceFacts) -> tuple[Held, ...]:
    fresh = [vote for vote in facts.votes if vote.fresh]
    if not fresh or len(fresh) < len(facts.votes):
        detail = f"{len(fresh)} of {len(facts.votes)} monitors gave a fresh vote"
        return (Held(reason=HoldReason.VOTES_MISSING, detail=detail),)
    if alive := [vote.monitor for vote in fresh if not vote.silent]:
        detail = f"{facts.host} still answers {', '.join(sorted(alive))}"
        return (Held(reason=HoldReason.VOTES_DISAGREE, detail=detail),)
    blind = [vote.monitor for vote in fresh if vote.others_seen == 0]
    if blind:
        # Also where there is no other host to see: then nothing tells its silence from our own
        # network's, and its guests would have nowhere to go.
        detail = f"{', '.join(sorted(blind))} sees no other host either, so it mistrusts itself"
        return (Held(reason=HoldReason.MANY_SILENT, detail=detail),)
    return ()


def _view(facts: FenceFacts) -> tuple[Held, ...]:
    if cold := [vote.monitor for vote in facts.votes if not vote.warm]:
        detail = f"{', '.join(sorted(cold))} started too recently to judge"
        return (Held(reason=HoldReason.VIEW_COLD, detail=detail),)
    return ()


def _many_silent(facts: FenceFacts) -> tuple[Held, ...]:
    if facts.hosts_silent and facts.hosts_silent * 2 >= facts.hosts:
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

"""Results of scenarios as plain values: for programs as JSON has them, for people as rows.

One run of a file has a line for each scenario and a count of each level at its end; the details of
a scenario say what moved, who recovered when, and why a level was not reached.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from simulator.scenarios.outcome import Outcome
from simulator.scenarios.verdict import LEVELS

HEADER = ("SCENARIO", *LEVELS, "FENCED", "MOVES", "RECOVERY", "PEER", "UNSUPPORTED")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One result for programs; times in seconds since the scenario began."""
    return {
        "name": outcome.name,
        "violations": list(outcome.violations),
        "fenced": list(outcome.fenced),
        "moves": [move.plain() for move in outcome.moves],
        "final_running": outcome.final_running,
        "recovery_s": outcome.recovery_s,
        "peer_recovery_s": outcome.peer_recovery_s,
        "levels": outcome.levels,
        "unsupported": list(outcome.unsupported),
    }


def row(outcome: Outcome) -> tuple[str, ...]:
    """One result as a line under `HEADER`."""
    return (
        outcome.name,
        *("yes" if outcome.levels[level] else "no" for level in LEVELS),
        ", ".join(outcome.fenced) or "-",
        str(len(outcome.moves)),
        _longest(outcome.recovery_s),
        _longest(outcome.peer_recovery_s),
        str(len(outcome.unsupported)),
    )


def details(outcome: Outcome) -> list[tuple[str, str]]:
    """One result as facts: everything that a line only counts."""
    facts = [("scenario", outcome.name), ("ended after", f"{outcome.ended_s:.1f} s")]
    facts += [(level, outcome.why_not[level] or "yes") for level in LEVELS]
    facts.append(("fenced", ", ".join(outcome.fenced) or "no host"))
    for move in outcome.moves:
        text = f"{move.kind} {move.vm}: {move.source} to {move.target}"
        facts.append(("move", f"{move.at_s:.1f} s  {text}"))
    facts += [("runs", f"{vm} on {host}") for vm, host in outcome.final_running.items()]
    for vm in dict.fromkeys((*outcome.recovery_s, *outcome.peer_recovery_s)):
        ours, peers = outcome.recovery_s.get(vm), outcome.peer_recovery_s.get(vm)
        facts.append(("recovery", f"{vm} after {_seconds(ours)}, peer {_seconds(peers)}"))
    facts += [("violation", violation) for violation in outcome.violations]
    facts += [("unsupported", what) for what in outcome.unsupported]
    return facts + [("note", note) for note in outcome.notes]


def totals(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """All results as facts: levels counted, recovery beside the peer's, what is lacking."""
    apart = [outcome for outcome in outcomes if outcome.balanced]
    facts = _reached([outcome for outcome in outcomes if not outcome.balanced])
    if apart:
        told = ", ".join(f"{level} {counted}" for level, counted in _reached(apart))
        facts.append(("without a balancer", f"{told} of those that ask for one"))
    both = [
        (outcome.recovery_s[vm], peers)
        for outcome in outcomes
        for vm, peers in outcome.peer_recovery_s.items()
        if vm in outcome.recovery_s
    ]
    if both:
        ours, peers = (median(times) for times in zip(*both, strict=True))
        facts.append(("recovery", f"median {ours:.1f} s, peer {peers:.1f} s, of {len(both)} VMs"))
    lacking = Counter(
        what.partition(":")[0] for outcome in outcomes for what in outcome.unsupported
    )
    facts += [("unsupported", f"{kind} in {count}") for kind, count in lacking.most_common()]
    return facts


def _reached(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    number = len(outcomes)
    return [
        (level, f"{sum(outcome.levels[level] for outcome in outcomes)} of {number}")
        for level in LEVELS
    ]


def _longest(times: dict[str, float]) -> str:
    return _seconds(max(times.values(), default=None))


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"

"""Which VMs belong together or apart, and on which hosts: rules, what they allow, what they clash.

A rule without hosts is about its VMs among themselves: on one host, or each on another. A rule with
hosts is about each of its VMs and those hosts: on one of them, or on none; it says nothing about
the VMs among themselves. A hard rule is never broken by a placement; a soft one weighs, and the
choice that breaks it says so.

Invariants  Only what a choice would do is judged: a hard rule that others break already (it came
            after they were started) keeps a VM down only where joining it would break it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.errors import Invalid


class AffinityRule(Frozen):
    """One rule, as an affinity group of a cluster has it."""

    name: str
    together: bool  # else apart
    hard: bool  # oVirt says "enforcing"
    vm_ids: tuple[UUID, ...] = Field(min_length=1)
    host_ids: tuple[UUID, ...] = ()

    @property
    def words(self) -> str:
        """As a person reads it: `hard rule web (apart)`."""
        strength = "hard" if self.hard else "soft"
        if self.host_ids:
            kind = "only on its hosts" if self.together else "never on its hosts"
        else:
            kind = "together" if self.together else "apart"
        return f"{strength} rule {self.name} ({kind})"


class Affinity(Frozen):
    """The rules of a cluster, and where the VMs that they name run now (or have a place)."""

    rules: tuple[AffinityRule, ...] = ()
    running: Mapping[UUID, UUID] = Field(default_factory=dict)  # VM → host
    coming: frozenset[UUID] = frozenset()  # VMs without a place that are to get one


class Contradiction(Frozen):
    """Hard rules that no placement can keep, by name, and why."""

    rules: tuple[str, ...]
    detail: str


def strain(rule: AffinityRule, vm_id: UUID, host_id: UUID, running: Mapping[UUID, UUID]) -> int:
    """By how many VMs the rule would be broken with this VM on this host; 0: it is kept."""
    if rule.host_ids:
        return int((host_id in rule.host_ids) is not rule.together)
    others = [running[other] for other in rule.vm_ids if other != vm_id and other in running]
    return sum((where == host_id) is not rule.together for where in others)


def companies(rules: Iterable[AffinityRule]) -> dict[UUID, frozenset[UUID]]:
    """For each VM that hard rules keep on one host with others: all of them, itself included."""
    found: dict[UUID, frozenset[UUID]] = {}
    for rule in rules:
        if _binds(rule):
            joined = frozenset(rule.vm_ids).union(*(found.get(vm, ()) for vm in rule.vm_ids))
            found |= dict.fromkeys(joined, joined)
    return found


def find_contradiction(
    rules: Iterable[AffinityRule],
    *,
    names: Mapping[UUID, str] | None = None,
    host_ids: Iterable[UUID] | None = None,
) -> Contradiction | None:
    """The first contradiction among hard rules; None: each VM alone could be placed.

    With the cluster's `host_ids`, rules that leave a VM no host at all are found, too. Whether
    there are enough hosts for all VMs that are to be apart is a question of the moment, not a
    contradiction.
    """
    hard = sorted((rule for rule in rules if rule.hard), key=lambda rule: rule.name)
    known = names or {}
    everywhere = None if host_ids is None else frozenset(host_ids)
    groups = companies(hard)
    found = chain(_both_ways(hard, groups, known), _nowhere(hard, groups, known, everywhere))
    return next(found, None)


def refuse_contradiction(
    rules: Iterable[AffinityRule],
    *,
    names: Mapping[UUID, str] | None = None,
    host_ids: Iterable[UUID] | None = None,
) -> None:
    """Invalid (`AFFINITY_CONTRADICTION`) when hard rules cannot all be kept."""
    found = find_contradiction(rules, names=names, host_ids=host_ids)
    if found is not None:
        raise Invalid(
            "AFFINITY_CONTRADICTION",
            found.detail,
            next_step=f"make one of these rules soft, or take VMs out: {', '.join(found.rules)}",
            rules=", ".join(found.rules),
        )


def _binds(rule: AffinityRule) -> bool:
    return rule.hard and rule.together and not rule.host_ids


def _both_ways(
    hard: list[AffinityRule],
    groups: Mapping[UUID, frozenset[UUID]],
    names: Mapping[UUID, str],
) -> Iterator[Contradiction]:
    """For each rule the first pair that it keeps apart, and others, in a chain, together."""
    for apart in hard:
        pair = None if apart.together or apart.host_ids else _first_pair(apart, groups)
        if pair is not None:
            one, other = pair
            bonds = _chain(one, other, hard)
            yield Contradiction(
                rules=(apart.name, *bonds),
                detail=f"{names.get(one, one)} and {names.get(other, other)} are kept apart by "
                f"{apart.name} and together by {' and '.join(bonds)}",
            )


def _first_pair(
    apart: AffinityRule, groups: Mapping[UUID, frozenset[UUID]]
) -> tuple[UUID, UUID] | None:
    """The first two VMs of a rule, by id, that are in one company."""
    members = sorted(set(apart.vm_ids))
    met = Counter(groups[vm_id] for vm_id in members if vm_id in groups)
    for one in members:
        if met[groups.get(one, frozenset())] > 1:
            return one, next(vm for vm in members if vm > one and vm in groups[one])
    return None


def _chain(one: UUID, other: UUID, hard: list[AffinityRule]) -> tuple[str, ...]:
    """Names of the fewest rules that together keep two VMs on one host; empty: none do."""
    bonds = [rule for rule in hard if _binds(rule)]
    ways: dict[UUID, tuple[str, ...]] = {one: ()}
    newest = [one]
    while newest and other not in ways:
        found: dict[UUID, tuple[str, ...]] = {}
        for vm_id in newest:
            for rule in bonds:
                if vm_id in rule.vm_ids:
                    for met in sorted(set(rule.vm_ids) - ways.keys() - found.keys()):
                        found[met] = (*ways[vm_id], rule.name)
        ways |= found
        newest = sorted(found)
    return ways.get(other, ())


def _nowhere(
    hard: list[AffinityRule],
    groups: Mapping[UUID, frozenset[UUID]],
    names: Mapping[UUID, str],
    everywhere: frozenset[UUID] | None,
) -> Iterator[Contradiction]:
    """VMs, with those that they are kept together with, for which rules leave no host."""
    hosted = [(rule, frozenset(rule.vm_ids)) for rule in hard if rule.host_ids]
    seen: set[UUID] = set()
    for vm_id in sorted({vm_id for rule in hard for vm_id in rule.vm_ids}):
        if vm_id in seen:
            continue
        members = groups.get(vm_id, frozenset({vm_id}))
        seen |= members
        about = [rule for rule, vm_ids in hosted if not members.isdisjoint(vm_ids)]
        if _hosts_left(about, everywhere) == frozenset():
            bound = [rule for rule in hard if _binds(rule) and members & set(rule.vm_ids)]
            who = ", ".join(sorted(str(names.get(member, member)) for member in members))
            by = ", ".join(rule.name for rule in (*about, *bound))
            yield Contradiction(
                rules=tuple(rule.name for rule in (*about, *bound)),
                detail=f"no host is left for {who} by {by}",
            )


def _hosts_left(
    about: list[AffinityRule], everywhere: frozenset[UUID] | None
) -> frozenset[UUID] | None:
    """The hosts that rules about hosts leave; None: any but those that some name."""
    left = everywhere
    for rule in about:
        if rule.together:
            hosts = frozenset(rule.host_ids)
            left = hosts if left is None else left & hosts
    banned = {host_id for rule in about if not rule.together for host_id in rule.host_ids}
    return None if left is None else left - banned

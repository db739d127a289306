"""Pairs that hard rules keep both together and apart: the same as by trying every pair."""

from itertools import combinations, pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import affinity
from domain.affinity import AffinityRule, Contradiction, find_contradiction

pytestmark = pytest.mark.unit

VMS = [UUID(int=number) for number in range(1, 8)]


@st.composite
def hard_rules(draw: st.DrawFn) -> list[AffinityRule]:
    """Hard rules about few VMs and no hosts, each with a name of its own."""
    members = st.lists(st.sampled_from(VMS), min_size=1, max_size=4)
    made = draw(st.lists(st.tuples(st.booleans(), members), max_size=7))
    return [
        AffinityRule(name=f"r{number}", together=together, hard=True, vm_ids=tuple(vm_ids))
        for number, (together, vm_ids) in enumerate(made)
    ]


def fewest_bonds(one: UUID, other: UUID, rules: list[AffinityRule]) -> int | None:
    """The slow way: how many rules lead from one VM to another; None: however many, none do."""
    bonds = [set(rule.vm_ids) for rule in rules if rule.together]
    reached = {one}
    for count in range(len(bonds) + 1):
        if other in reached:
            return count
        reached |= {vm for bond in bonds if bond & reached for vm in bond}
    return None


def by_every_pair(rules: list[AffinityRule]) -> tuple[str, UUID, UUID, int] | None:
    """The first rule by name with a pair that others keep together, and by how few of them."""
    for apart in rules:
        if apart.together:
            continue
        for one, other in combinations(sorted(set(apart.vm_ids)), 2):
            count = fewest_bonds(one, other, rules)
            if count is not None:
                return apart.name, one, other, count
    return None


@given(rules=hard_rules())
def test_the_first_pair_is_found_that_trying_every_pair_finds(rules: list[AffinityRule]) -> None:
    found, expected = find_contradiction(rules), by_every_pair(rules)
    if found is None or expected is None:
        assert (found, expected) == (None, None)
        return
    name, one, other, count = expected
    assert found.detail.startswith(f"{one} and {other} are kept apart by {name} and together by ")
    assert (found.rules[0], len(found.rules)) == (name, count + 1)


def test_a_thousand_vms_apart_and_many_bonds_between_others_ask_for_one_chain_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vms = [UUID(int=number) for number in range(1, 1101)]
    apart = AffinityRule(name="apart", together=False, hard=True, vm_ids=tuple(vms[:1000]))
    bonds = [
        AffinityRule(name=f"b{number:02}", together=True, hard=True, vm_ids=pair)
        for number, pair in enumerate(pairwise(vms[999:1051]))
    ]
    asked: list[tuple[UUID, UUID]] = []
    real = affinity._chain

    def noted(one: UUID, other: UUID, hard: list[AffinityRule]) -> tuple[str, ...]:
        asked.append((one, other))
        return real(one, other, hard)

    monkeypatch.setattr(affinity, "_chain", noted)
    assert find_contradiction([apart, *bonds]) is None
    assert asked == []
    last = AffinityRule(name="last", together=True, hard=True, vm_ids=(vms[0], vms[1050]))
    found = find_contradiction([apart, *bonds, last])
    assert isinstance(found, Contradiction)
    assert (len(found.rules), asked) == (len(bonds) + 2, [(vms[0], vms[999])])

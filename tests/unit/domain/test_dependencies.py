"""Cycles between VMs: found when there is one, named, and found again in the same words."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.dependencies import find_cycle, refuse_cycle
from domain.errors import Invalid
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

IDS = [UUID(int=number) for number in range(7)]
Edges = dict[UUID, list[UUID]]

some_edges = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)), max_size=14)


def graph(pairs: list[tuple[UUID, UUID]]) -> Edges:
    found: Edges = {}
    for vm_id, other in pairs:
        found.setdefault(vm_id, []).append(other)
    return found


def reaches_itself(pairs: list[tuple[UUID, UUID]]) -> bool:
    """The slow way: join pairs until nothing new comes of it."""
    closed = set(pairs)
    while more := {(a, d) for a, b in closed for c, d in closed if b == c} - closed:
        closed |= more
    return any(a == b for a, b in closed)


@given(pairs=some_edges)
def test_a_cycle_is_found_exactly_when_some_vm_waits_for_itself_in_the_end(
    pairs: list[tuple[UUID, UUID]],
) -> None:
    cycle = find_cycle(graph(pairs))
    assert (cycle is not None) is reaches_itself(pairs)
    if cycle is not None:
        assert len(set(cycle)) == len(cycle)
        assert set(zip(cycle, (*cycle[1:], cycle[0]), strict=True)) <= set(pairs)


@given(data=st.data(), pairs=some_edges)
def test_the_order_in_which_edges_are_read_does_not_change_the_cycle(
    data: st.DataObject, pairs: list[tuple[UUID, UUID]]
) -> None:
    shuffled = data.draw(st.permutations(pairs))
    assert find_cycle(graph(shuffled)) == find_cycle(graph(pairs))


def test_ten_thousand_vms_in_a_row_are_no_cycle_until_the_last_waits_for_the_first() -> None:
    row = [UUID(int=number) for number in range(10_000)]
    edges: Edges = {vm_id: [other] for vm_id, other in pairwise(row)}
    assert find_cycle(edges) is None
    edges[row[-1]] = [row[0]]
    assert find_cycle(edges) == tuple(row)


def test_a_wide_net_without_a_cycle_is_walked_once_and_not_once_a_path() -> None:
    layers = [[UUID(int=100 * level + n) for n in range(10)] for level in range(40)]
    edges = {vm: lower for upper, lower in pairwise(layers) for vm in upper}
    assert find_cycle(edges) is None


def test_a_cycle_is_refused_by_names_and_says_what_to_leave_out() -> None:
    names = {id_of(name): name for name in ("app", "db", "web")}
    edges = {id_of("web"): [id_of("app")], id_of("app"): [id_of("db")], id_of("db"): [id_of("web")]}
    with pytest.raises(Invalid) as refused:
        refuse_cycle(edges, names)
    assert refused.value.code == "DEPENDENCY_CYCLE"
    shown = refused.value.detail.removeprefix("3 VMs would wait for one another: ").split(" → ")
    assert shown[0] == shown[-1]
    assert sorted(shown[:-1]) == ["app", "db", "web"]
    assert f"that of {shown[-2]} on {shown[0]}" in refused.value.next_step


def test_a_long_cycle_is_shown_in_part() -> None:
    row = [UUID(int=number) for number in range(50)]
    edges = {vm_id: [other] for vm_id, other in zip(row, (*row[1:], row[0]), strict=True)}
    with pytest.raises(Invalid) as refused:
        refuse_cycle(edges, {vm_id: f"vm{vm_id.int}" for vm_id in row})
    assert refused.value.detail.endswith("vm5 → vm6 → … → vm49 → vm0")


def test_vms_that_wait_for_nothing_or_for_strangers_are_accepted() -> None:
    refuse_cycle({id_of("a"): [id_of("stranger")], id_of("b"): []}, {})

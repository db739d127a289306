"""The state table of a host, checked against a second copy of it and as a graph."""

from collections.abc import Container, Iterable
from itertools import product

import pytest

from domain.errors import Conflict
from domain.hosts import NEXT, POLLED, SILENT, HostEvent, advance, sources
from domain.inventory import HostState

pytestmark = pytest.mark.unit

S, E = HostState, HostEvent
LEGAL = {
    (S.UP, E.MISSED): S.CONNECTING,
    (S.UP, E.DRAIN): S.PREPARING_MAINTENANCE,
    (S.UP, E.ACTIVATE): S.RECONCILING,
    (S.CONNECTING, E.MISSED): S.CONNECTING,
    (S.CONNECTING, E.ANSWERED): S.UP,
    (S.CONNECTING, E.SILENT): S.NON_RESPONSIVE,
    (S.CONNECTING, E.ACTIVATE): S.RECONCILING,
    (S.NON_RESPONSIVE, E.SILENT): S.NON_RESPONSIVE,
    (S.NON_RESPONSIVE, E.FENCE): S.FENCING,
    (S.NON_RESPONSIVE, E.RETURNED): S.UP,
    (S.NON_RESPONSIVE, E.PROVEN_OFF): S.DOWN,
    (S.NON_RESPONSIVE, E.ACTIVATE): S.RECONCILING,
    (S.FENCING, E.FENCE): S.FENCING,
    (S.FENCING, E.PROVEN_OFF): S.DOWN,
    (S.FENCING, E.RETURNED): S.UP,
    (S.FENCING, E.FAILED): S.NON_RESPONSIVE,
    (S.DOWN, E.SILENT): S.DOWN,
    (S.DOWN, E.PROVEN_OFF): S.DOWN,
    (S.DOWN, E.ALIVE): S.NON_OPERATIONAL,
    (S.DOWN, E.ACTIVATE): S.RECONCILING,
    (S.RECONCILING, E.ADMITTED): S.UP,
    (S.RECONCILING, E.ACTIVATE): S.RECONCILING,
    (S.RECONCILING, E.FAILED): S.NON_OPERATIONAL,
    (S.NON_OPERATIONAL, E.SILENT): S.NON_OPERATIONAL,
    (S.NON_OPERATIONAL, E.FENCE): S.NON_OPERATIONAL,
    (S.NON_OPERATIONAL, E.PROVEN_OFF): S.DOWN,
    (S.NON_OPERATIONAL, E.ACTIVATE): S.RECONCILING,
    (S.MAINTENANCE, E.ACTIVATE): S.RECONCILING,
    (S.PREPARING_MAINTENANCE, E.STAY): S.UP,
    (S.PREPARING_MAINTENANCE, E.EMPTIED): S.MAINTENANCE,
    (S.PREPARING_MAINTENANCE, E.SILENT): S.PREPARING_MAINTENANCE,
    (S.PREPARING_MAINTENANCE, E.FENCE): S.PREPARING_MAINTENANCE,
    (S.PREPARING_MAINTENANCE, E.PROVEN_OFF): S.DOWN,
    (S.PREPARING_MAINTENANCE, E.ACTIVATE): S.RECONCILING,
    (S.ERROR, E.ACTIVATE): S.RECONCILING,
}
ILLEGAL = sorted(set(product(HostState, HostEvent)) - set(LEGAL))


def reachable(
    start: HostState, events: Container[HostEvent], without: Iterable[HostState] = ()
) -> set[HostState]:
    """Every state that some sequence of these events leads to, never entering `without`."""
    found, queue = {start}, [start]
    while queue:
        moves = NEXT[queue.pop()].items()
        new = {to for event, to in moves if event in events} - found - set(without)
        found |= new
        queue += new
    return found


@pytest.mark.parametrize(("state", "event"), LEGAL, ids=lambda value: value.value)
def test_a_host_moves_as_the_table_says(state: HostState, event: HostEvent) -> None:
    assert advance(state, event) is LEGAL[state, event]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda value: value.value)
def test_a_host_refuses_an_event_it_does_not_expect(state: HostState, event: HostEvent) -> None:
    with pytest.raises(Conflict) as caught:
        advance(state, event)
    assert caught.value.code == "HOST_STATE_FORBIDS"
    assert caught.value.context == {"state": state, "event": event}
    assert f"state {state.value} " in caught.value.detail
    assert caught.value.detail.endswith(f"the event {event.value}")


def test_every_state_has_a_row_in_the_table() -> None:
    assert set(NEXT) == set(HostState)


@pytest.mark.parametrize("event", HostEvent)
def test_the_sources_of_an_event_are_exactly_the_states_that_expect_it(event: HostEvent) -> None:
    expecting = [state for state in NEXT if (state, event) in LEGAL]
    assert list(sources(event)) == expecting
    assert expecting != []


def test_silence_alone_never_leads_past_non_responsive() -> None:
    heard_and_unheard = {E.MISSED, E.ANSWERED, E.SILENT}
    assert reachable(S.UP, heard_and_unheard) == {S.UP, S.CONNECTING, S.NON_RESPONSIVE}


def test_only_a_proof_leads_to_down() -> None:
    without_proof = set(HostEvent) - {E.PROVEN_OFF}
    starts = set(HostState) - {S.DOWN}
    assert [s for s in starts if S.DOWN in reachable(s, without_proof)] == []
    assert S.DOWN in reachable(S.UP, set(HostEvent))


@pytest.mark.parametrize(
    "start",
    sorted(set(HostState) - POLLED - {S.RECONCILING, S.PREPARING_MAINTENANCE}),
    ids=lambda state: state.value,
)
def test_nothing_out_of_service_reaches_up_except_through_reconciling(start: HostState) -> None:
    assert S.UP not in reachable(start, set(HostEvent), without={S.RECONCILING})
    assert S.UP in reachable(start, set(HostEvent))


def test_only_admission_ends_reconciling_in_up() -> None:
    assert S.UP not in reachable(S.RECONCILING, set(HostEvent) - {E.ADMITTED})


def test_no_state_is_a_dead_end() -> None:
    assert [s for s in HostState if S.UP not in reachable(s, set(HostEvent))] == []


def test_a_silent_host_is_one_that_is_polled_and_not_up() -> None:
    assert POLLED - {S.UP} == SILENT
    assert {S.UP, S.CONNECTING, S.NON_RESPONSIVE, S.FENCING} == POLLED

"""Locks: once each, always in one order, and who is in whose way."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.locks import Held, Lock, LockMode, exclusive, in_order, in_the_way, shared
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

LOCKS = st.builds(
    Lock,
    entity_type=st.sampled_from(["vm", "host", "cluster"]),
    entity_id=st.integers(0, 5).map(lambda n: UUID(int=n)),
    mode=st.sampled_from(LockMode),
)


def held(lock: Lock, by: str = "other") -> Held:
    return Held(lock=lock, operation_id=id_of(by), kind="vm.start", state="running")


@given(st.lists(LOCKS))
def test_however_they_are_named_locks_are_taken_once_and_in_one_order(locks: list[Lock]) -> None:
    ordered = in_order(locks)
    assert ordered == in_order(reversed(locks)) == in_order([*locks, *locks])
    assert [lock.entity for lock in ordered] == sorted({lock.entity for lock in locks})


@given(st.lists(LOCKS))
def test_an_entity_that_is_wanted_both_ways_is_owned(locks: list[Lock]) -> None:
    owned = {lock.entity for lock in locks if lock.mode is LockMode.EXCLUSIVE}
    assert {lock.entity for lock in in_order(locks) if lock.mode is LockMode.EXCLUSIVE} == owned


def test_many_may_share_what_nobody_owns() -> None:
    cluster = id_of("c1")
    assert in_the_way([shared("cluster", cluster)], [held(shared("cluster", cluster))]) == ()


@pytest.mark.parametrize(
    ("wanted", "there"),
    [(exclusive, exclusive), (exclusive, shared), (shared, exclusive)],
    ids=["owned-twice", "owned-while-shared", "shared-while-owned"],
)
def test_what_one_owns_no_other_has(wanted: type, there: type) -> None:
    vm = id_of("db")
    other = held(there("vm", vm))
    assert in_the_way([wanted("vm", vm)], [other]) == (other,)


def test_locks_on_other_entities_are_in_nobodys_way() -> None:
    others = [held(exclusive("vm", id_of("app"))), held(exclusive("host", id_of("db")))]
    assert in_the_way([exclusive("vm", id_of("db"))], others) == ()

"""One table gives every operation its class."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.context import PriorityClass
from domain.permissions import Role
from domain.priorities import Urgency, fairness_of, priority_of
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

P = PriorityClass
URGENCIES = st.builds(
    Urgency,
    kind=st.sampled_from(["vm.start", "vm.stop", "host.recover", "vm.create"]),
    default=st.sampled_from(P),
    protected=st.booleans(),
    role=st.sampled_from(Role),
    parent=st.none() | st.sampled_from(P),
    asked=st.none() | st.sampled_from(P),
)


@pytest.mark.parametrize(
    ("kind", "default", "protected", "role", "expected"),
    [
        ("host.recover", P.RECOVERY, False, Role.MONITOR, P.RECOVERY),
        ("host.activate", P.PERSON, False, Role.MONITOR, P.RECOVERY),
        ("vm.start", P.PERSON, True, Role.ADMIN, P.PROTECTED),
        ("vm.start", P.PERSON, False, Role.ADMIN, P.PERSON),
        ("vm.stop", P.PERSON, True, Role.OPERATOR, P.PERSON),
        ("vm.start", P.PERSON, False, Role.AUTOMATION, P.BALANCE),
        ("vm.create", P.INVENTORY, False, Role.ADMIN, P.INVENTORY),
    ],
)
def test_the_class_follows_from_action_vm_and_principal(
    kind: str, default: P, protected: bool, role: Role, expected: P
) -> None:
    facts = Urgency(kind=kind, default=default, protected=protected, role=role)
    assert priority_of(facts) is expected


@pytest.mark.parametrize("parent", P)
def test_a_child_is_as_urgent_as_its_parent(parent: P) -> None:
    facts = Urgency(
        kind="host.fence", default=P.PERSON, protected=False, role=Role.ADMIN, parent=parent
    )
    assert priority_of(facts) is parent


def test_the_restart_of_a_protected_vm_has_its_own_class_within_a_recovery() -> None:
    facts = Urgency(
        kind="vm.start", default=P.PERSON, protected=True, role=Role.MONITOR, parent=P.RECOVERY
    )
    assert priority_of(facts) is P.PROTECTED


@given(URGENCIES)
def test_asking_never_makes_anything_more_urgent(facts: Urgency) -> None:
    unasked = priority_of(facts.model_copy(update={"asked": None}))
    assert priority_of(facts) >= unasked
    if facts.asked is not None:
        assert priority_of(facts) == max(unasked, facts.asked)


@given(URGENCIES.filter(lambda facts: facts.role not in (Role.MONITOR, Role.ENGINE)))
def test_only_the_engine_itself_gets_the_class_of_fences(facts: Urgency) -> None:
    inherited = facts.parent is P.RECOVERY
    assert inherited or priority_of(facts) > P.RECOVERY or facts.default is P.RECOVERY


def test_the_operations_of_one_cluster_share_a_turn() -> None:
    assert fairness_of(id_of("c1")) == fairness_of(id_of("c1")) != fairness_of(id_of("c2"))
    assert len(fairness_of(id_of("c1")).encode()) <= 64
    assert fairness_of(None)

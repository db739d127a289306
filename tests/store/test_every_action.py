"""Every action on its entity in every state, and with garbage in every field: never a defect.

The cases come from the registry and the status matrices, so a new action without a line here fails.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.errors import Conflict
from domain.hosts import MARKED
from domain.inventory import HostState, VmState
from domain.matrix import MATRICES, REBOOTED, allowed_in
from domain.operations import OperationState
from store import operations
from store.ids import new_id
from tests.store.engine_room import Engine
from tests.store.scenes import (
    ACTIONS,
    NOT_IN_TABLES,
    Scene,
    params_of,
    refusal_of,
    wishes,
)
from tests.store.world import PERSON

pytestmark = [pytest.mark.store, pytest.mark.parametrize("kind", ["sqlite-memory"], indirect=True)]

NASTY: tuple[Any, ...] = (
    *(None, "", "\x00", "x" * 5000, "Ünïcødé", "../../etc", "'; DROP TABLE vm; --", "\ud800"),
    *(-1, 0, 2**31, 2**63, 2**200, 1.5, float("nan"), float("inf"), True),
    *([], {}, [None], {"a": {"b": []}}, ["x"] * 70, str(new_id()), [str(UUID(int=0))] * 65),
)


RULES = sorted(set(ACTIONS) - NOT_IN_TABLES | {REBOOTED})
"""Every kind of action, and what the matrices tell apart of one."""

JUDGED_BY = {"vm.import": "host"}
"""Kinds that are allowed by the state of something else than what they are named after."""

JUDGED_BY_NONE = {"host.add", "host.fence", "vm.create"}
"""Kinds that make their entity, or that the operation they are part of has judged: in any state."""

FORBIDDEN_BY = {
    "host.confirm_dead": "NO_OPEN_INCIDENT",
    "host.approve_fence": "NO_OPEN_INCIDENT",
    "host.withdraw_approval": "NO_OPEN_INCIDENT",
    "vm.start": "VM_NOT_DOWN",
    "vm.start unknown": "HOST_NOT_PROVEN_DEAD",
    "vm.stop": "VM_NOT_RUNNING",
    "vm.stop unknown": "HOST_NOT_PROVEN_DEAD",
    "vm.stop migrating": "VM_MIGRATING",
    "vm.migrate migrating": "VM_MIGRATING",
    "vm.migrate": "VM_NOT_RUNNING",
    "vm.migrate unknown": "HOST_NOT_PROVEN_DEAD",
    "vm.adopt_copy down": "VM_NOT_RUNNING",
    "vm.adopt_copy migrating": "VM_MIGRATING",
    "vm.adopt_copy unknown": "HOST_NOT_PROVEN_DEAD",
    "vm.end_copy migrating": "VM_MIGRATING",
    "vm.end_copy unknown": "HOST_NOT_PROVEN_DEAD",
    "vm.delete": "VM_NOT_DOWN",
}
"""The code of a refusal by state, where it is not the entity's own `..._STATE_FORBIDS`."""


def cases(*, allowed: bool) -> Iterator[Any]:
    """Every kind of action with every state of its entity that allows it, or that forbids it."""
    for rule in RULES:
        entity = JUDGED_BY.get(rule, rule.partition(".")[0])
        for state, rules in MATRICES.get(entity, {"": frozenset[str]()}).items():
            if allowed == (not state or rule in JUDGED_BY_NONE or rule in rules):
                yield pytest.param(rule, entity, str(state), id=f"{rule}-{state}".rstrip("-"))


@pytest.mark.parametrize(("rule", "entity", "state"), list(cases(allowed=True)))
async def test_an_action_succeeds_in_every_state_that_allows_it(
    engine: Engine, rule: str, entity: str, state: str
) -> None:
    scene = await Scene(engine).build(entity if state else "", state)
    params = params_of(await scene.prepare(rule, state), rule)
    receipt = await engine.act(params)
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    durable = engine.backend.acceptance.action_of(params).workflow is not None
    assert row["state"] == ("pending" if durable else "succeeded")


@pytest.mark.parametrize(("rule", "entity", "state"), list(cases(allowed=False)))
async def test_an_action_is_refused_for_the_state_in_every_other_state(
    engine: Engine, rule: str, entity: str, state: str
) -> None:
    scene = await Scene(engine).build(entity, state)
    error = await engine.refusal(params_of(scene, rule))
    own = f"{entity.upper()}_STATE_FORBIDS"
    assert error.code == FORBIDDEN_BY.get(f"{rule} {state}", FORBIDDEN_BY.get(rule, own))
    assert isinstance(error, Conflict), error
    assert (error.status, bool(error.detail)) == (409, True)


def test_every_state_and_action_is_judged_once(kind: str) -> None:
    both = [*cases(allowed=True), *cases(allowed=False)]
    assert len({case.id for case in both}) == len(both)
    named = {case.values[0] for case in cases(allowed=True)}
    assert named == set(RULES), "an action that no state allows"


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - NOT_IN_TABLES))
async def test_garbage_in_any_field_is_a_clear_no_and_never_a_defect(
    engine: Engine, action: str
) -> None:
    scene = await Scene(engine).build()
    sensible = wishes(scene.ids)[action]
    for field in ACTIONS[action].params.model_fields:
        for value in NASTY:
            try:
                params = ACTIONS[action].params.model_validate(sensible | {field: value})
            except ValidationError:
                continue
            refused = await refusal_of(engine.backend.dry_run(params, PERSON))
            assert refused is None or (refused.code and refused.detail)


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - NOT_IN_TABLES))
async def test_an_unknown_field_is_refused_by_every_action(engine: Engine, action: str) -> None:
    scene = await Scene(engine).build()
    with pytest.raises(ValidationError):
        ACTIONS[action].params.model_validate(wishes(scene.ids)[action] | {"surprise": 1})


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - NOT_IN_TABLES))
async def test_a_dry_run_of_every_action_changes_nothing(engine: Engine, action: str) -> None:
    scene = await Scene(engine).build()
    before = await engine.everything()
    refused = await refusal_of(engine.backend.dry_run(params_of(scene, action), PERSON))
    assert refused is None or refused.status in (404, 409)
    assert await engine.everything() == before


def test_every_action_has_a_sensible_request_here(kind: str) -> None:
    nobody = dict.fromkeys(
        ("cluster", "host", "fence", "vm", "network", "affinity", "operation"), UUID(int=0)
    )
    assert set(wishes(nobody)) == set(ACTIONS) - NOT_IN_TABLES


def test_the_matrices_name_only_actions_that_exist(kind: str) -> None:
    named = {kind for matrix in MATRICES.values() for kinds in matrix.values() for kind in kinds}
    assert named - set(ACTIONS) == {REBOOTED}


def test_a_monitors_word_of_a_reboot_counts_where_monitors_look_for_one(kind: str) -> None:
    assert set(allowed_in("host", REBOOTED)) == set(MARKED)


def test_no_action_that_becomes_a_workflow_carries_a_secret(kind: str) -> None:
    durable = [action for action in ACTIONS.values() if action.workflow is not None]
    assert durable
    schemas = {action.kind: str(action.params.model_json_schema()) for action in durable}
    assert [name for name, schema in schemas.items() if "password" in schema] == []


def test_every_state_of_every_entity_has_a_row(kind: str) -> None:
    expected = {"host": HostState, "vm": VmState, "operation": OperationState}
    assert {entity: set(rows) for entity, rows in MATRICES.items()} == {
        entity: set(states) for entity, states in expected.items()
    }

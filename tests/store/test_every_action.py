"""Every action on its entity in every state, and with garbage in every field: never a defect.

The cases come from the registry and the status matrices, so a new action without a line here fails.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr, ValidationError

from domain.errors import Conflict, EngineError
from domain.inventory import HostState, VmState
from domain.matrix import MATRICES
from domain.operations import OperationState
from engine.actions.base import Action, Params
from engine.registry import all_actions
from store import inventory
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Agents, Engine, Sealer
from tests.store.world import PERSON

pytestmark = [pytest.mark.store, pytest.mark.parametrize("kind", ["sqlite-memory"], indirect=True)]

ACTIONS: dict[str, Action[Any, Any]] = {
    action.kind: action for action in all_actions(Sealer(), Agents())
}
NOT_IN_TABLES = {"batch"}
"""Kinds that no caller names: `run_multiple_actions` makes them."""

NASTY: tuple[Any, ...] = (
    *(None, "", "\x00", "x" * 5000, "Ünïcødé", "../../etc", "'; DROP TABLE vm; --", "\ud800"),
    *(-1, 0, 2**31, 2**63, 2**200, 1.5, float("nan"), float("inf"), True),
    *([], {}, [None], {"a": {"b": []}}, ["x"] * 70, str(new_id()), [str(UUID(int=0))] * 65),
)


class Scene:
    """One of each object, the entity of the case in its state."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.ids: dict[str, UUID] = {}

    async def build(self, entity: str = "", state: str = "") -> "Scene":
        """Write them."""
        world = self.world
        self.ids["cluster"] = world.cluster_id
        self.ids["host"] = await world.host("h1")
        self.ids["fence"] = await world.device(self.ids["host"])
        self.ids["vm"] = await world.vm("db")
        row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "created_at": world.now}
        await world.do(inventory.insert, "network", row | {"name": "lan", "bridge": None})
        group = row | {"id": new_id(), "name": "apart", "together": False, "hard": False}
        await world.do(inventory.insert, "affinity_group", group)
        self.ids |= {"network": row["id"], "affinity": group["id"]}
        self.ids["operation"] = await world.operation(self.ids["vm"])
        if entity:
            await STATES[entity](self, state)
        return self

    async def set_host(self, state: str) -> None:
        """The host in a state."""
        await self.world.put("host", self.ids["host"], state=state)

    async def set_operation(self, state: str) -> None:
        """The operation in a state, as its own last change left it."""
        claimed = {"run_id": "r1"} if state != "pending" else {}
        params = {"vm_id": str(self.ids["vm"])}
        values = {"state": state, "params": params} | claimed
        await self.world.put("operation", self.ids["operation"], **values)

    async def set_vm(self, state: str) -> None:
        """The VM in a state, by its run and its host."""
        vm, host = self.ids["vm"], self.ids["host"]
        if state == VmState.POWERING_UP:
            await self.world.placed(vm, host)
        elif state != VmState.DOWN:
            run = await self.world.running(vm, host)
            if state == VmState.POWERING_DOWN:
                await self.world.stopping(run["id"])
            if state == VmState.UNKNOWN:
                await self.set_host("non_responsive")


STATES: dict[str, Callable[[Scene, str], Awaitable[None]]] = {
    "host": Scene.set_host,
    "vm": Scene.set_vm,
    "operation": Scene.set_operation,
}


def wishes(ids: dict[str, UUID]) -> dict[str, dict[str, Any]]:
    """One sensible request for every kind of action."""
    cluster, host, vm = {"cluster_id": ids["cluster"]}, {"host_id": ids["host"]}, ids["vm"]
    fence, network = {"fence_device_id": ids["fence"]}, {"network_id": ids["network"]}
    group, operation = {"affinity_group_id": ids["affinity"]}, {"operation_id": ids["operation"]}
    return {
        "cluster.create": {"name": "c2"},
        "cluster.edit": cluster | {"profile": "fast"},
        "cluster.remove": cluster,
        "cluster.arm": cluster | {"armed": False},
        "network.create": cluster | {"name": "wan", "bridge": "br1"},
        "network.edit": network | {"name": "wan"},
        "network.remove": network,
        "host.add": cluster | {"name": "h2", "uri": "qemu+tcp://h2/system"},
        "host.edit": host | {"name": "h9"},
        "host.remove": host,
        "host.activate": host,
        "host.recover": host | {"epoch": 1, "why": "silent", "reported_by": "m1"},
        "host.fence": host | {"incident_id": new_id()},
        "fence.add": host
        | {"name": "b2", "agent": "fence_ipmilan", "secrets": {"password": SecretStr("x")}},
        "fence.edit": fence | {"name": "b9"},
        "fence.remove": fence,
        "vm.create": cluster | {"name": "app", "memory_mib": 64},
        "vm.edit": {"vm_id": vm, "vcpus": 2},
        "vm.delete": {"vm_id": vm},
        "vm.start": {"vm_id": vm},
        "vm.stop": {"vm_id": vm},
        "vm.import": host | {"guest_id": new_id(), "name": "old"},
        "affinity.create": cluster | {"name": "near", "together": True, "vm_ids": (vm,)},
        "affinity.edit": group | {"hard": True},
        "affinity.delete": group,
        "operation.cancel": operation,
        "operation.retry": operation,
        "operation.pause": operation,
        "operation.resume": operation,
        "operation.prioritise": operation | {"priority": 4},
    }


def params_of(scene: Scene, kind: str) -> Params:
    """The sensible request of a kind."""
    return ACTIONS[kind].params.model_validate(wishes(scene.ids)[kind])


def cases() -> Iterator[Any]:
    """Every kind of action with every state of its entity."""
    for kind in sorted(set(ACTIONS) - NOT_IN_TABLES):
        entity = kind.partition(".")[0]
        for state in MATRICES.get(entity, {"": frozenset()}):
            yield pytest.param(kind, entity, str(state), id=f"{kind}-{state}".rstrip("-"))


async def refusal_of(asked: Awaitable[Any]) -> EngineError | None:
    """Why something was refused, or None; any other error is a defect and is raised."""
    try:
        await asked
    except EngineError as error:
        return error
    return None


def creates(kind: str) -> bool:
    """Whether an action makes its entity, which then has no state yet."""
    return kind in ("host.add", "vm.create", "vm.import", "host.fence")


@pytest.mark.parametrize(("action", "entity", "state"), list(cases()))
async def test_an_action_is_allowed_where_the_matrix_says_so_and_refused_elsewhere(
    engine: Engine, action: str, entity: str, state: str
) -> None:
    scene = await Scene(engine).build(entity if state else "", state)
    params = params_of(scene, action)
    judged = state and not creates(action)
    if judged and ACTIONS[action].rule(params) not in MATRICES[entity][state]:
        error = await engine.refusal(params)
        assert isinstance(error, Conflict), error
        assert (error.status, bool(error.detail)) == (409, True)
        return
    refused = await refusal_of(engine.act(params))
    if refused is not None:
        assert refused.code != f"{entity.upper()}_STATE_FORBIDS", refused
        assert refused.detail
        assert refused.status in (404, 409, 422)


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
    assert named - set(ACTIONS) == {"host.activate_rebooted"}


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

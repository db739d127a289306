"""Every action that people may ask for, refused or stopped as one item of a batch.

The kinds come from the registry, so a new action is asked here, too. What is refused names what is
not there, or what was never written: none of that may keep the other items from being accepted.
"""

from typing import Any
from uuid import UUID

import pytest

from domain.operations import OperationState
from engine.actions.base import Params
from store import operations
from store.ids import new_id
from tests.store.engine_room import Engine, columns
from tests.store.many import batch, children, several, starts
from tests.store.scenes import ACTIONS, Scene, wishes

pytestmark = pytest.mark.store

EXTERNAL = sorted(kind for kind, action in ACTIONS.items() if action.external)
OBJECTS = ("cluster", "host", "fence", "vm", "network", "affinity", "operation")
TAKEN = {
    "cluster.create": "c1",
    "network.create": "lan",
    "host.add": "h1",
    "fence.add": "bmc1",
    "vm.create": "db",
    "affinity.create": "apart",
}
"""What makes an object, and the name that another one has."""


def asked(kind: str, ids: dict[str, UUID], **more: Any) -> Params:
    return ACTIONS[kind].params.model_validate(wishes(ids)[kind] | more)


def of_nothing(kind: str) -> Params:
    """A request that is refused: about nothing that is there, or a name that is taken."""
    nothing = {name: new_id() for name in OBJECTS}
    return asked(kind, nothing, **({"name": "c1"} if kind == "cluster.create" else {}))


async def test_an_item_about_nothing_that_is_there_is_refused_alone(engine: Engine) -> None:
    vms = await several(engine, len(EXTERNAL))
    for kind, vm in zip(EXTERNAL, vms, strict=True):
        receipt = await batch(engine, [of_nothing(kind), *starts([vm])])
        assert (receipt.accepted, receipt.refused) == (1, 1), kind
        refused, started = await children(engine, receipt.operation_id)
        assert (refused["kind"], refused["state"], started["state"]) == (kind, "failed", "pending")
        assert refused["cluster_id"] is None, kind


async def test_an_item_whose_name_is_taken_is_refused_alone(engine: Engine) -> None:
    scene = await Scene(engine).build()
    vms = await several(engine, len(TAKEN))
    for (kind, name), vm in zip(TAKEN.items(), vms, strict=True):
        receipt = await batch(engine, [asked(kind, scene.ids, name=name), *starts([vm])])
        refused, started = await children(engine, receipt.operation_id)
        assert refused["problem"]["code"].endswith("NAME_TAKEN"), refused["problem"]
        assert started["state"] == "pending"
        of_it = None if kind == "cluster.create" else engine.world.cluster_id
        assert refused["cluster_id"] == of_it, kind


async def test_items_that_never_begin_may_be_about_nothing_that_is_there(engine: Engine) -> None:
    items = [of_nothing("vm.start"), *(of_nothing(kind) for kind in EXTERNAL)]
    receipt = await batch(engine, items, stop_on_error=True)
    assert (receipt.refused, receipt.stopped) == (1, len(EXTERNAL))
    rows = await children(engine, receipt.operation_id)
    assert columns(rows[1:], "kind", "state", "cluster_id") == [
        (kind, OperationState.CANCELLED, None) for kind in EXTERNAL
    ]


async def test_a_batch_is_of_no_cluster_that_is_not_there(engine: Engine) -> None:
    receipt = await batch(engine, [of_nothing("vm.create")])
    parent = await engine.world.do(operations.get, receipt.operation_id)
    assert parent is not None
    assert (parent["cluster_id"], parent["state"]) == (None, "pending")

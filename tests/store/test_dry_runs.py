"""A dry run says what the real request would do: each case is asked both ways."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.actions.base import Params
from engine.actions.clusters import CreateCluster, RemoveCluster
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.vm_config import CreateVm, DeleteVm, EditVm
from engine.actions.vms import StartVm, StopVm
from engine.backend import Options
from engine.batches import STOPPED, BatchOptions
from engine.views import DryRunView
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.many import Many, batch, children, several, starts
from tests.store.scenes import refusal_of
from tests.store.world import PERSON

pytestmark = pytest.mark.store

Case = Callable[[Engine], Awaitable[Many]]


async def the_same_name_twice(engine: Engine) -> Many:
    return [CreateVm(cluster_id=engine.world.cluster_id, name="twice", memory_mib=64)] * 2


async def the_same_vm_twice(engine: Engine) -> Many:
    return starts(await several(engine, 1) * 2)


async def a_vm_that_is_deleted_first(engine: Engine) -> Many:
    vm, other = await several(engine, 2)
    return [DeleteVm(vm_id=vm), StartVm(vm_id=vm), StartVm(vm_id=other)]


async def an_edit_that_makes_the_next_ones_version_stale(engine: Engine) -> Many:
    (vm,) = await several(engine, 1)
    return [EditVm(vm_id=vm, priority=60, expected_version=1)] * 2


async def one_that_makes_room_for_another(engine: Engine) -> Many:
    (vm,) = await several(engine, 1)
    started = (await engine.act(StartVm(vm_id=vm))).operation_id
    return [CancelOperation(operation_id=started), StartVm(vm_id=vm)]


async def a_retry_of_what_an_earlier_one_has_retried(engine: Engine) -> Many:
    (vm,) = await several(engine, 1)
    started = (await engine.act(StartVm(vm_id=vm))).operation_id
    await engine.act(CancelOperation(operation_id=started))
    return [RetryOperation(operation_id=started)] * 2


async def nothing_that_is_there(engine: Engine) -> Many:
    (vm,) = await several(engine, 1)
    return [StartVm(vm_id=new_id()), CreateCluster(name="c1"), *starts([vm])]


async def what_needs_no_wait_beside_what_does(engine: Engine) -> Many:
    cluster_id = engine.world.cluster_id
    (vm,) = await several(engine, 1)
    return [
        *starts([vm]),
        StopVm(vm_id=vm),
        EditVm(vm_id=vm, vcpus=2),
        RemoveCluster(cluster_id=cluster_id),
    ]


CASES = [
    the_same_name_twice,
    the_same_vm_twice,
    a_vm_that_is_deleted_first,
    an_edit_that_makes_the_next_ones_version_stale,
    one_that_makes_room_for_another,
    a_retry_of_what_an_earlier_one_has_retried,
    nothing_that_is_there,
    what_needs_no_wait_beside_what_does,
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"lock_wait_s": 60.0},
    {"all_or_nothing": True},
    {"stop_on_error": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("case", CASES)
async def test_a_dry_run_of_a_batch_says_what_becomes_of_each_item(
    engine: Engine, case: Case, options: dict[str, Any]
) -> None:
    items = await case(engine)
    before = await engine.everything()
    views = await engine.backend.dry_run_multiple(items, PERSON, BatchOptions(**options))
    assert await engine.everything() == before
    assert [told(view) for view in views] == await done(engine, items, options)


def told(view: DryRunView) -> str | None:
    assert view.allowed == (not view.problems)
    return view.problems[0].code if view.problems else None


async def done(engine: Engine, items: Many, options: dict[str, Any]) -> list[str | None]:
    """The code for which each item was refused, or None."""
    refused = await refusal_of(batch(engine, items, **options))
    if refused is not None:
        assert refused.code == "BATCH_REFUSED"
        found = {one.context["index"]: one.code for one in reversed(refused.problems)}
        return [found.get(index) for index in range(len(items))]
    (parent,) = [row for row in await engine.rows("operation") if row["kind"] == "batch"]
    return [_code(row) for row in await children(engine, parent["id"])]


def _code(row: Row) -> str | None:
    if row["reason_code"] == STOPPED:
        return STOPPED.upper()
    return row["problem"] and str(row["problem"]["code"])


@pytest.mark.parametrize("lock_wait_s", [0.0, 5.0])
@pytest.mark.parametrize("wish", [StartVm, StopVm, EditVm, DeleteVm])
async def test_a_dry_run_on_a_vm_that_is_being_started_says_what_the_request_does(
    engine: Engine, wish: type[Params], lock_wait_s: float
) -> None:
    (vm,) = await several(engine, 1)
    await engine.act(StartVm(vm_id=vm))
    params = wish.model_validate({"vm_id": vm} | ({"vcpus": 2} if wish is EditVm else {}))
    options = Options(lock_wait_s=lock_wait_s)
    view = await engine.backend.dry_run(params, PERSON, options)
    refused = await refusal_of(engine.backend.run_action(params, PERSON, options=options))
    assert told(view) == (refused and refused.code)

"""An operation whose locks another takes over: closed at once, and its workflow told to end."""

from uuid import UUID

import pytest

from domain.operations import OperationState, Outcome
from engine.acceptance import Terms
from engine.actions.hosts import RecoverHost
from engine.actions.operations import RetryOperation
from engine.actions.vms import StartVm, StopVm
from store import control
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_imports import ask
from tests.store.test_recovery_records import Death
from tests.store.test_sweeper import Scene

pytestmark = pytest.mark.store


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """A scene without hosts."""
    return Scene(engine)


async def stopping(scene: Scene, *, protected: bool) -> UUID:
    """A stop on a host that dies, claimed and paused by its workflow."""
    world = scene.world
    scene.host = await world.host("dead")
    scene.vm = await world.vm(protected=protected)
    await world.running(scene.vm, scene.host)
    receipt = await scene.engine.act(StopVm(vm_id=scene.vm))
    operation = await scene.begun(receipt.operation_id)
    assert await world.do(control.pause, operation, "a person")
    await world.put("vm", scene.vm, wanted=True)  # somebody has asked for it again since
    await world.host("alive")
    return operation


@pytest.mark.parametrize("protected", [True, False])
async def test_a_claimed_operation_that_a_recovery_takes_over_is_told_to_end(
    scene: Scene, protected: bool
) -> None:
    stop = await stopping(scene, protected=protected)
    await (await Death(scene.engine, scene.host).build()).claim()
    row = await scene.row(stop)
    assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")
    assert await scene.to_tell(stop) == ["cancel"]
    late = Outcome(operation_id=stop, attempt=1, state=OperationState.FAILED, summary="late")
    await scene.engine.operations.close(late)
    assert await scene.row(stop) == row, "what its workflow says of its end changes nothing"


async def test_an_operation_that_no_workflow_has_claimed_has_nobody_to_tell(scene: Scene) -> None:
    world = scene.world
    await world.host()
    vm = await world.vm(protected=True)
    loser = (await scene.engine.act(StartVm(vm_id=vm))).operation_id
    await scene.taken(loser)
    parent = await scene.row(await world.operation(kind="host.recover"))

    async def take_over(_connection: object) -> UUID:
        terms = Terms(by_parent=True, preempt=True)
        return await scene.engine.backend.run_child(StartVm(vm_id=vm), parent, terms)

    await world.database.write(take_over)
    assert (await scene.row(loser))["state"] == "cancelled"
    assert await scene.to_tell(loser) == []


async def test_an_import_is_told_once_for_all_locks_that_it_loses(scene: Scene) -> None:
    world, host = scene.world, await scene.world.host()
    one = await ask(scene.engine, host, await world.operation())
    operation = await scene.begun(one.step.operation_id)
    await one.record()
    await world.put("host", host, state="connecting")
    wish = RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")
    await scene.engine.act(wish, principal="monitor:m1")
    assert await scene.to_tell(operation) == ["cancel"]
    events = [row["type"] for row in await scene.engine.rows("event")]
    assert events.count("vm.import.cancelled") == 1


async def test_a_request_to_end_that_was_not_told_in_time_misses_the_next_try(
    scene: Scene,
) -> None:
    stop = await stopping(scene, protected=False)
    await (await Death(scene.engine, scene.host).build()).claim()
    values: Row = {"state": "up", "epoch": 2}
    await scene.world.put("host", scene.host, **values)
    await scene.world.running(scene.vm, scene.host, epoch=2)
    await scene.engine.act(RetryOperation(operation_id=stop))
    assert await scene.to_tell(stop) == ["start"]

"""What is told of waiting for locks: who may wait, who is in the way, who gets it first."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import EngineError
from domain.operations import OperationState, Outcome, Problem
from engine.actions.hosts import ActivateHost
from engine.actions.imports import ImportVm
from engine.actions.operations import CancelOperation
from engine.actions.vm_config import EditVm
from engine.actions.vms import StartVm, StopVm
from engine.backend import Options
from engine.batches import BatchOptions
from engine.queries.operations import GetOperation, ListOperations
from store import control
from store.ids import new_id
from tests.store.engine_room import POLICY, Engine, columns
from tests.store.many import batch, children, ends, several
from tests.store.world import PERSON

pytestmark = pytest.mark.store

WAITING = Options(lock_wait_s=30)


async def asked(engine: Engine, params: Any, options: Options = WAITING) -> UUID:
    return (await engine.backend.run_action(params, PERSON, options=options)).operation_id


async def told(engine: Engine, operation: UUID) -> Any:
    return await engine.backend.run_query(GetOperation(operation_id=operation))


async def a_busy_vm(engine: Engine, name: str = "db") -> tuple[UUID, UUID]:
    """A VM and the start that holds it."""
    if not await engine.rows("host"):
        await engine.world.host()
    vm = await engine.world.vm(name)
    return vm, (await engine.act(StartVm(vm_id=vm))).operation_id


async def a_busy_host(engine: Engine, name: str = "h1") -> tuple[UUID, UUID]:
    """A host in service and an operation that owns it."""
    host = await engine.world.host(name)
    holder = await engine.world.operation(host, kind="host.edit", target_type="host")
    await engine.world.take("host", host, holder)
    return host, holder


def an_import(host: UUID) -> ImportVm:
    return ImportVm(host_id=host, guest_id=new_id(), name=f"old-{str(new_id())[-6:]}")


async def test_what_waits_says_what_can_be_done_about_it_and_no_more_once_it_has_ended(
    engine: Engine,
) -> None:
    vm, _holder = await a_busy_vm(engine)
    waiting = await asked(engine, StopVm(vm_id=vm))
    assert f"`holdfast op prioritise {waiting} 2`" in (await told(engine, waiting)).next_step
    await engine.act(CancelOperation(operation_id=waiting))
    assert (await told(engine, waiting)).next_step is None


async def test_what_is_done_at_once_is_refused_a_wait_in_run_and_dry_run_alike(
    engine: Engine,
) -> None:
    for vm in (await engine.world.vm("free"), (await a_busy_vm(engine))[0]):
        wish = EditVm(vm_id=vm, vcpus=2)
        with pytest.raises(EngineError) as refused:
            await asked(engine, wish)
        problems = refused.value.problems or (refused.value,)
        assert "LOCK_WAIT_NOT_POSSIBLE" in [problem.code for problem in problems]
        view = await engine.backend.dry_run(wish, PERSON, WAITING)
        assert not view.allowed
        (shown,) = [one for one in view.problems if one.code == "LOCK_WAIT_NOT_POSSIBLE"]
        assert "vm.edit" in shown.detail
        assert "lock_wait_s" in shown.next_step
    assert {row["vcpus"] for row in await engine.rows("vm")} == {1}


async def test_without_a_wait_it_is_busy_in_run_and_dry_run_alike(engine: Engine) -> None:
    vm, _ = await a_busy_vm(engine)
    wish = EditVm(vm_id=vm, vcpus=2)
    assert (await engine.refusal(wish)).code == "OBJECT_BUSY"
    view = await engine.backend.dry_run(wish, PERSON)
    assert [problem.code for problem in view.problems] == ["OBJECT_BUSY"]


async def test_a_dry_run_allows_what_would_wait_and_no_wait_makes_a_wrong_request_right(
    engine: Engine,
) -> None:
    vm, _ = await a_busy_vm(engine)
    stop, nowhere = StopVm(vm_id=vm), StartVm(vm_id=vm, host_id=new_id())
    assert (await engine.backend.dry_run(stop, PERSON, WAITING)).allowed, "it may run by then"
    view = await engine.backend.dry_run(nowhere, PERSON, WAITING)
    assert (view.allowed, [one.code for one in view.problems]) == (False, ["HOST_NOT_FOUND"])
    with pytest.raises(EngineError, match="HOST_NOT_FOUND"):
        await asked(engine, nowhere)
    await asked(engine, stop)


async def test_in_a_batch_the_wait_counts_for_those_that_can_wait(engine: Engine) -> None:
    free, busy = await several(engine, 2)
    await engine.act(StartVm(vm_id=busy))
    items: Any = [EditVm(vm_id=free, vcpus=2), EditVm(vm_id=busy, vcpus=2), StartVm(vm_id=busy)]
    options = BatchOptions(lock_wait_s=30)
    views = await engine.backend.dry_run_multiple(items, PERSON, options)
    assert [view.allowed for view in views] == [True, False, True]
    receipt = await batch(engine, items, lock_wait_s=30)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state") == ["succeeded", "failed", "waiting"]
    assert rows[1]["problem"]["code"] == views[1].problems[0].code == "OBJECT_BUSY"


async def test_who_waits_for_a_host_that_is_not_its_target_is_told_who_holds_it(
    engine: Engine,
) -> None:
    host, first = await a_busy_host(engine)
    waiting = await asked(engine, an_import(host))
    view = await told(engine, waiting)
    (block,) = view.blocked_by
    assert (block.what, block.operation_id, block.kind) == ("lock", first, "host.edit")
    assert "holds host h1" in block.detail
    assert view.waiting_for == block.detail


async def test_the_holder_that_is_told_is_the_present_one(engine: Engine) -> None:
    host, first = await a_busy_host(engine)
    waiting = await asked(engine, an_import(host))
    await ends(engine, first)
    second = await engine.world.operation(host, kind="host.activate", target_type="host")
    await engine.world.take("host", host, second)
    view = await told(engine, waiting)
    (block,) = view.blocked_by
    assert (block.operation_id, block.kind) == (second, "host.activate")
    assert "host.activate" in view.waiting_for
    assert "host.edit" not in view.waiting_for


async def test_the_position_counts_those_that_wait_for_the_same_lock_and_no_others(
    engine: Engine,
) -> None:
    host, _ = await a_busy_host(engine)
    other, _ = await a_busy_host(engine, "h2")
    vm, _ = await a_busy_vm(engine)
    await asked(engine, StartVm(vm_id=vm))
    await asked(engine, an_import(other))
    await engine.world.put("host", host, state="down")
    owner = await asked(engine, ActivateHost(host_id=host))
    await engine.world.put("host", host, state="up")
    guest = an_import(host)
    waiting, sharer, rival = [await asked(engine, wish) for wish in (guest, an_import(host), guest)]
    assert await positions(engine, owner, waiting, sharer, rival) == [None, 1, 1, 2]


async def positions(engine: Engine, *operations: UUID) -> list[int | None]:
    """How many go before each, None where nobody does."""
    found = []
    for operation in operations:
        blocks = (await told(engine, operation)).blocked_by
        found.append(next((one.position for one in blocks if one.position is not None), None))
    return found


async def test_a_position_far_behind_is_told_as_the_least_that_it_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queries.lock_waits.LOOKED_AT", 2)
    vm, _ = await a_busy_vm(engine)
    waiting = [await asked(engine, StartVm(vm_id=vm)) for _ in range(4)]
    assert await positions(engine, *waiting) == [None, 1, 2, 2]
    (_, before) = (await told(engine, waiting[3])).blocked_by
    assert before.detail.startswith("at least 2 others")


async def test_who_would_get_its_locks_now_is_told_so(engine: Engine) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await asked(engine, StartVm(vm_id=vm))
    await ends(engine, first, "failed")
    (block,) = (await told(engine, waiting)).blocked_by
    assert (block.what, block.operation_id) == ("reason", None)
    assert "free" in block.detail


async def test_who_waits_for_what_is_gone_is_told_so(engine: Engine) -> None:
    vm, _ = await a_busy_vm(engine)
    waiting = await asked(engine, StartVm(vm_id=vm))
    await engine.world.put("operation", waiting, params={"vm_id": str(UUID(int=7))})
    (block,) = (await told(engine, waiting)).blocked_by
    assert block.what == "reason"
    assert "there is no vm" in block.detail


async def test_looking_at_a_waiting_operation_changes_nothing(engine: Engine) -> None:
    host, _ = await a_busy_host(engine)
    waiting = await asked(engine, an_import(host))
    before = await engine.everything()
    await told(engine, waiting)
    assert await engine.everything() == before


async def a_held_start(engine: Engine, code: str = "NO_ROOM") -> UUID:
    """A start whose workflow has just said what it waits for."""
    await engine.world.host()
    vm = await engine.world.vm("db")
    operation = (await engine.act(StartVm(vm_id=vm))).operation_id
    await engine.operations.claim(operation, 1, "run-1")
    await engine.operations.wait(operation, code, "the largest gap is 3 MiB")
    return operation


async def test_what_waits_tells_by_when_it_is_looked_at_again_alone_and_in_a_list(
    engine: Engine,
) -> None:
    operation, said = await a_held_start(engine), engine.world.now
    engine.world.now += timedelta(seconds=2)
    due = said + timedelta(seconds=POLICY.capacity_retry_s)
    assert (await told(engine, operation)).next_look_at == due
    (listed,) = (await engine.backend.run_query(ListOperations(kind="vm.start"))).items
    assert listed.next_look_at == due
    engine.world.now += timedelta(seconds=3)
    await engine.operations.wait(operation, "NO_ROOM", "still no room")
    assert (await told(engine, operation)).next_look_at == due + timedelta(seconds=5)


@pytest.mark.parametrize("after", ["goes on", "claimed anew", "paused", "told by the sweeper"])
async def test_what_waits_for_that_no_more_has_no_next_look(engine: Engine, after: str) -> None:
    operation = await a_held_start(engine)
    if after == "goes on":
        await engine.operations.wait(operation, None, "")
    elif after == "claimed anew":
        await engine.operations.claim(operation, 1, "run-1")
        await engine.world.put("operation", operation, state="waiting", reason_code="NO_ROOM")
    elif after == "paused":
        await engine.operations.pause(operation, True)
    else:
        await engine.world.do(control.show_reason, operation, "NO_ROOM", "its workflow is gone")
    assert (await told(engine, operation)).next_look_at is None


async def test_what_is_tried_again_has_no_next_look_of_its_earlier_try(engine: Engine) -> None:
    operation = await a_held_start(engine)
    problem = Problem(code="START_FAILED", detail="no")
    await engine.operations.close(
        Outcome(operation_id=operation, state=OperationState.FAILED, problem=problem)
    )
    assert (await told(engine, operation)).next_look_at is None
    assert (await engine.world.get("operation", operation))["waiting_told_at"] is None


async def test_who_waits_for_locks_is_told_until_when_and_no_more_once_it_has_them(
    engine: Engine,
) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await asked(engine, StopVm(vm_id=vm))
    view = await told(engine, waiting)
    assert (view.gives_up_at - engine.world.now).total_seconds() == 30
    assert view.next_look_at is None
    assert (await told(engine, first)).gives_up_at is None
    await engine.act(CancelOperation(operation_id=waiting))
    assert (await told(engine, waiting)).gives_up_at is None

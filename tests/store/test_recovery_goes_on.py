"""Nothing keeps a failed host's VMs from being taken and started again, or its recovery from going
on: not one VM with a history, not other operations on the host, not a recovery that was cut short.
"""

from uuid import UUID

import pytest

from activities.hosts import AdmitOrder, FailOrder
from activities.recovery import ReportOrder
from domain.errors import Conflict, EngineError
from domain.hosts import MARKED
from domain.inventory import HostState
from domain.operations import OperationState, Outcome, WorkflowState
from domain.orders import Reconciliation
from domain.profiles import Profile
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.imports import ImportVm
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.shut_down_host import RebootHost
from engine.actions.vm_config import DeleteVm
from engine.records.watching import WatchRecords
from engine.sweeper import REOPENED_MOST
from store import incidents, operations, runs
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.test_recovery_records import Death
from tests.store.test_sweeper import Scene

pytestmark = pytest.mark.store

MONITOR = "monitor:m1"


def failure(host: UUID) -> RecoverHost:
    return RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")


async def report(engine: Engine, host: UUID) -> UUID:
    return (await engine.act(failure(host), principal=MONITOR)).operation_id


async def not_taken(engine: Engine, host: UUID) -> str:
    with pytest.raises(EngineError) as refused:
        await report(engine, host)
    return refused.value.code


async def row_of(engine: Engine, operation: UUID) -> Row:
    row = await engine.world.do(operations.get, operation)
    assert row is not None
    return row


async def failing(engine: Engine) -> UUID:
    """A host that misses polls, with a protected VM."""
    host = await engine.world.host("h")
    await engine.world.running(await engine.world.vm("db", protected=True), host)
    await engine.world.put("host", host, state="connecting")
    return host


async def with_a_doubtful_past(engine: Engine) -> tuple[UUID, UUID]:
    """A VM that runs on `second` since it was lost on a host whose certificate is void by now."""
    world = engine.world
    first = await world.host("first")
    vm = await world.vm("db", protected=True)
    await world.running(vm, first)
    second = await world.host("second", memory_mib=4096)
    (restart,) = (await (await Death(engine, first).build()).claim()).restarts
    assert restart.run is not None
    assert await world.do(runs.begin_start, restart.run.run_id, restart.operation_id)
    assert await world.do(runs.started, restart.run.run_id, world.now)
    good = Outcome(operation_id=restart.operation_id, state=OperationState.SUCCEEDED)
    await engine.operations.close(good)
    assert await world.do(incidents.void_certificate, first, 1, "alive after all", world.now)
    await world.put("host", first, state="non_operational")
    return second, vm


async def test_a_vm_that_may_not_start_keeps_no_other_from_being_claimed(engine: Engine) -> None:
    world = engine.world
    second, _vm = await with_a_doubtful_past(engine)
    for name in ("mail", "web"):
        await world.running(await world.vm(name, protected=True), second)
    await world.host("third", memory_mib=8192)
    death = await Death(engine, second).build()
    plan = await death.claim()
    assert sorted(restart.vm_name for restart in plan.restarts) == ["db", "mail", "web"]
    assert await world.do(runs.active_runs, second) == []
    begun = {}
    for restart in plan.restarts:
        assert restart.run is not None
        start = (restart.run.run_id, restart.operation_id)
        begun[restart.vm_name] = await world.do(runs.begin_start, *start)
    assert begun == {"db": False, "mail": True, "web": True}


async def test_a_vm_that_may_not_start_keeps_no_host_out_of_service(engine: Engine) -> None:
    world = engine.world
    second, vm = await with_a_doubtful_past(engine)
    run = await world.do(runs.active_run, vm)
    assert run is not None
    await world.do(runs.end, run["id"], "found gone", world.now)
    await world.put("host", second, state="reconciling")
    fields = {"kind": "host.activate", "target_type": "host", "workflow": "ActivateHost"}
    operation = await world.operation(second, **fields)
    settled = Reconciliation(ended=("db",), memory_mib=4096, cpus=4)
    order = AdmitOrder(operation_id=operation, host=await engine.ref(second), settled=settled)
    assert await engine.hosts.admit(order) == 2
    (child,) = await world.do(operations.children, operation)
    assert (child["kind"], child["target_id"]) == ("vm.start", vm)


@pytest.mark.parametrize("how", [WorkflowState.TERMINATED, WorkflowState.FAILED])
async def test_a_recovery_whose_workflow_was_ended_is_begun_again(
    engine: Engine, how: WorkflowState
) -> None:
    scene = Scene(engine)
    host = await failing(engine)
    operation = await scene.begun(await report(engine, host))
    scene.is_now(operation, how)
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["attempt"], row["run_id"]) == ("pending", 2, None)
    assert await scene.to_tell(operation) == ["start"]
    assert columns(await engine.rows("incident"), "open") == [1]
    assert await not_taken(engine, host) == "INCIDENT_OPEN"


async def test_a_recovery_that_has_reported_is_not_begun_again(engine: Engine) -> None:
    scene = Scene(engine)
    host = await failing(engine)
    operation = await scene.begun(await report(engine, host))
    (incident,) = await engine.rows("incident")
    ref = await engine.ref(host)
    order = ReportOrder(incident_id=incident["id"], host=ref, returned=True, outcomes=())
    await engine.recoveries.report(order)
    scene.is_now(operation, WorkflowState.TERMINATED)
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["attempt"]) == ("cancelled", 1)
    assert columns(await engine.rows("incident"), "outcome") == ["returned"]


async def test_a_recovery_that_a_person_cancelled_is_begun_again_by_a_person_alone(
    engine: Engine,
) -> None:
    host = await failing(engine)
    operation = await report(engine, host)
    await engine.act(CancelOperation(operation_id=operation))
    assert (await row_of(engine, operation))["state"] == "cancelled"
    assert await not_taken(engine, host) == "RECOVERY_CANCELLED"
    await engine.act(RetryOperation(operation_id=operation))
    row = await row_of(engine, operation)
    assert (row["state"], row["attempt"]) == ("pending", 2)
    old, new = await engine.rows("incident")
    assert (old["outcome"], new["open"]) == ("cancelled", 1)
    assert row["incident_id"] == new["id"]
    assert row["order"]["incident_id"] == str(new["id"])
    assert new["operation_id"] == operation


async def test_a_recovery_whose_workflow_ends_again_and_again_is_given_up_and_reported_anew(
    engine: Engine,
) -> None:
    scene = Scene(engine)
    host = await failing(engine)
    operation = await scene.begun(await report(engine, host))
    for attempt in range(1, REOPENED_MOST):
        scene.is_now(operation, WorkflowState.TERMINATED, attempt)
        assert await scene.sweep() == 1
        await scene.begun(operation, attempt + 1)
    scene.is_now(operation, WorkflowState.TERMINATED, REOPENED_MOST)
    assert await scene.sweep() == 1
    assert (await row_of(engine, operation))["problem"]["code"] == "WORKFLOW_TERMINATED"
    assert columns(await engine.rows("incident"), "outcome") == ["incomplete"]
    assert await report(engine, host) != operation


async def test_a_recovery_that_failed_is_reported_anew(engine: Engine) -> None:
    host = await failing(engine)
    operation = await report(engine, host)
    (incident,) = await engine.rows("incident")
    assert await engine.world.do(incidents.close, incident["id"], "incomplete", engine.world.now)
    await engine.operations.close(Outcome(operation_id=operation, state=OperationState.FAILED))
    assert (await engine.world.get("host", host))["state"] == "non_responsive"
    assert await report(engine, host) != operation


async def test_a_proven_host_is_reported_again_as_long_as_its_vms_were_not_claimed(
    engine: Engine,
) -> None:
    world = engine.world
    host = await failing(engine)
    await world.certificate(host)
    (incident,) = await engine.rows("incident")
    await world.do(incidents.close, incident["id"], "incomplete", world.now)
    assert (await world.get("host", host))["state"] == "down"
    await report(engine, host)
    assert (await world.get("host", host))["state"] == "down"


async def test_a_host_that_is_down_with_nothing_to_claim_is_not_recovered(engine: Engine) -> None:
    world = engine.world
    host = await world.host("h")
    await world.certificate(host)
    (incident,) = await engine.rows("incident")
    await world.do(incidents.close, incident["id"], "recovered", world.now)
    assert await not_taken(engine, host) == "NOTHING_TO_RECOVER"


async def test_a_host_with_the_longest_name_can_miss_a_poll_and_fail(engine: Engine) -> None:
    world = engine.world
    host = await world.host("n" * 63)
    await world.running(await world.vm(), host)
    records = WatchRecords(world.database, world.clock)
    (watched,) = await records.watched(Profile.BALANCED)
    await records.missed(watched, "no answer")
    assert (await world.get("host", host))["state"] == "connecting"
    await report(engine, host)
    assert (await world.get("host", host))["state"] == "non_responsive"


async def test_claiming_again_leaves_out_a_restart_whose_vm_was_deleted(engine: Engine) -> None:
    world = engine.world
    dead, _alive = await world.host("dead"), await world.host("alive")
    vm = await world.vm("db", protected=True)
    app = await world.vm("app", protected=True, depends_on=(vm,))
    for one in (vm, app):
        await world.running(one, dead)
    death = await Death(engine, dead).build()
    first = {restart.vm_name: restart for restart in (await death.claim()).restarts}
    assert first["app"].depends_on == (vm,)
    await engine.act(CancelOperation(operation_id=first["db"].operation_id))
    await world.put("vm", vm, removed_at=world.now)
    (left,) = (await death.claim()).restarts
    assert (left.vm_name, left.depends_on) == ("app", ())


async def test_a_vm_whose_restart_was_cancelled_is_deleted_and_the_claim_is_repeated(
    engine: Engine,
) -> None:
    world = engine.world
    dead, _alive = await world.host("dead"), await world.host("alive")
    vm = await world.vm("db", protected=True)
    await world.running(vm, dead)
    death = await Death(engine, dead).build()
    (restart,) = (await death.claim()).restarts
    await engine.act(CancelOperation(operation_id=restart.operation_id))
    await engine.act(DeleteVm(vm_id=vm))
    assert (await death.claim()).restarts == ()


async def test_an_import_on_a_host_that_rebooted_gives_way_to_its_activation(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host("h")
    receipt = await engine.act(ImportVm(host_id=host, guest_id=new_id()))
    rebooted = ActivateHost(host_id=host, rebooted_epoch=1)
    await engine.act(rebooted, principal=MONITOR)
    assert (await row_of(engine, receipt.operation_id))["reason_code"] == "superseded"
    assert (await world.get("host", host))["state"] == "reconciling"


async def test_an_import_on_a_host_does_not_give_way_to_a_person(engine: Engine) -> None:
    host = await engine.world.host("h", state="non_operational")
    importing = await engine.world.operation(host, kind="vm.import")
    await engine.world.take("host", host, importing)
    assert (await engine.refusal(ActivateHost(host_id=host))).code == "OBJECT_BUSY"


@pytest.mark.parametrize("kind", ["host.activate", "host.add"])
async def test_an_activation_that_only_has_to_be_closed_gives_way_to_a_recovery(
    engine: Engine, kind: str
) -> None:
    world = engine.world
    host = await world.host("h", state="connecting")
    activation = await world.operation(host, kind=kind, target_type="host")
    await world.take("host", host, activation)
    await report(engine, host)
    assert (await row_of(engine, activation))["reason_code"] == "superseded"


async def test_a_host_that_is_being_activated_is_not_recovered(engine: Engine) -> None:
    host = await engine.world.host("h", state="down")
    activation = (await engine.act(ActivateHost(host_id=host))).operation_id
    assert await not_taken(engine, host) == "HOST_STATE_FORBIDS"
    assert (await row_of(engine, activation))["state"] == "pending"


@pytest.mark.parametrize(("state", "epoch"), [("fencing", 1), ("fencing", 2), ("reconciling", 2)])
async def test_late_word_of_an_old_activation_disturbs_nobody(
    engine: Engine, state: str, epoch: int
) -> None:
    world = engine.world
    host = await world.host("h", state="reconciling")
    order = FailOrder(host=await engine.ref(host), why="it was superseded")
    await world.put("host", host, state=state, epoch=epoch)
    await engine.hosts.fail(order)
    assert (await world.get("host", host))["state"] == state


async def test_an_activation_that_came_too_late_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await engine.world.host("h", state="down")

    async def moved_on(*_: object) -> bool:
        return False

    monkeypatch.setattr("store.hosts.move", moved_on)
    with pytest.raises(Conflict, match="HOST_STATE_FORBIDS"):
        await engine.act(ActivateHost(host_id=host))
    assert await engine.rows("operation") == []


OUT_OF_SERVICE = sorted(set(HostState) - MARKED)


@pytest.mark.parametrize("state", OUT_OF_SERVICE)
async def test_a_monitor_with_an_old_view_brings_no_host_back_that_is_out_of_service(
    engine: Engine, state: HostState
) -> None:
    host = await engine.world.host("h", state=state)
    rebooted = ActivateHost(host_id=host, rebooted_epoch=1)
    with pytest.raises(Conflict, match="HOST_STATE_FORBIDS"):
        await engine.act(rebooted, principal=MONITOR)
    assert (await engine.world.get("host", host))["state"] == state


async def test_a_monitor_with_an_old_view_takes_no_host_from_its_planned_reboot(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host("h")
    await world.device(host)
    reboot = (await engine.act(RebootHost(host_id=host))).operation_id
    await world.put("host", host, state="maintenance")  # its power is off, read back
    with pytest.raises(Conflict):
        await engine.act(ActivateHost(host_id=host, rebooted_epoch=1), principal=MONITOR)
    assert (await row_of(engine, reboot))["state"] == "pending"
    owners = [lock["operation_id"] for lock in await engine.rows("entity_lock")]
    assert owners == [reboot]


async def test_a_person_has_the_activation_of_a_rebooted_host_tried_again(engine: Engine) -> None:
    host = await engine.world.host("h")
    rebooted = ActivateHost(host_id=host, rebooted_epoch=1)
    operation = (await engine.act(rebooted, principal=MONITOR)).operation_id
    await engine.act(CancelOperation(operation_id=operation))
    await engine.act(RetryOperation(operation_id=operation))
    assert (await engine.world.get("host", host))["state"] == "reconciling"
    assert (await row_of(engine, operation))["attempt"] == 2


async def test_an_activation_that_has_begun_leaves_its_host_out_of_service(
    engine: Engine,
) -> None:
    scene = Scene(engine)
    host = await engine.world.host("h", state="maintenance")
    operation = await scene.begun((await engine.act(ActivateHost(host_id=host))).operation_id)
    scene.is_now(operation, WorkflowState.TERMINATED)
    await scene.sweep()
    assert (await engine.world.get("host", host))["state"] == "non_operational"


async def test_a_host_that_was_in_service_is_left_out_of_it_by_a_cancelled_activation(
    engine: Engine,
) -> None:
    host = await engine.world.host("h")
    rebooted = ActivateHost(host_id=host, rebooted_epoch=1)
    operation = (await engine.act(rebooted, principal=MONITOR)).operation_id
    await engine.act(CancelOperation(operation_id=operation))
    assert (await engine.world.get("host", host))["state"] == "non_operational"

"""Actions on VMs and hosts, checked against the state they meet."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import Conflict, Invalid, NotFound, Superseded
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.vms import StartVm, StopVm
from engine.queries.incidents import GetIncident
from store import incidents, inventory, runs
from store.ids import new_id
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store


async def test_a_start_is_accepted_for_a_vm_that_is_down(engine: Engine) -> None:
    world = engine.world
    await world.host()
    vm = await world.vm(wanted=False)
    receipt = await engine.act(StartVm(vm_id=vm))
    assert (await world.get("vm", vm))["wanted"] is True
    assert columns(await engine.rows("entity_lock"), "entity_id", "operation_id") == [
        (vm, receipt.operation_id)
    ]
    assert await engine.rows("vm_run") == []


@pytest.mark.parametrize("state", ["up", "connecting"])
async def test_a_running_vm_is_not_started(engine: Engine, state: str) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await world.running(vm, host)
    await world.put("host", host, state=state)
    error = await engine.refusal(StartVm(vm_id=vm))
    assert (error.code, error.context["host"], error.context["state"]) == (
        *("VM_NOT_DOWN", "h1"),
        "running",
    )


@pytest.mark.parametrize("params", [StartVm, StopVm])
@pytest.mark.parametrize("state", ["non_responsive", "fencing", "down"])
async def test_a_vm_of_a_silent_host_is_neither_started_nor_stopped(
    engine: Engine, params: type[StartVm | StopVm], state: str
) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await world.host("h2")
    await world.running(vm, host)
    await world.put("host", host, state=state)
    error = await engine.refusal(params(vm_id=vm))
    assert (error.code, error.context["host_state"]) == ("HOST_NOT_PROVEN_DEAD", state)


async def test_a_vm_whose_proof_of_loss_was_withdrawn_is_not_started(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await world.host("h2")
    run = await world.running(vm, host)
    certificate = await world.certificate(host)
    await world.do(runs.lose, run["id"], certificate, world.now)
    await world.do(incidents.void_certificate, host, 1, "heard again", world.now)
    error = await engine.refusal(StartVm(vm_id=vm))
    assert (error.code, error.context["host"]) == ("CERTIFICATE_VOID", "h1")
    await world.put("host", host, epoch=2, state="up")
    await engine.act(StartVm(vm_id=vm))


async def test_a_vm_that_was_lost_under_a_certificate_may_be_started_again(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await world.host("h2")
    run = await world.running(vm, host)
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    assert not (await engine.act(StartVm(vm_id=vm))).replayed


async def test_a_stopped_vm_is_not_stopped_again(engine: Engine) -> None:
    vm = await engine.world.vm()
    error = await engine.refusal(StopVm(vm_id=vm))
    assert (error.code, type(error)) == ("VM_NOT_RUNNING", Conflict)


async def test_a_vm_that_is_only_placed_cannot_be_stopped_yet(engine: Engine) -> None:
    world = engine.world
    vm = await world.vm()
    await world.placed(vm, await world.host())
    error = await engine.refusal(StopVm(vm_id=vm))
    assert (error.code, error.next_step) == ("VM_NOT_RUNNING", "wait for its start to end")


async def test_a_stop_names_the_run_that_it_ends(engine: Engine) -> None:
    world = engine.world
    vm = await world.vm()
    run = await world.running(vm, await world.host())
    await engine.act(StopVm(vm_id=vm, force=True))
    (operation,) = [row for row in await engine.rows("operation") if row["kind"] == "vm.stop"]
    order = operation["order"]
    assert (order["run"]["run_id"], order["run"]["generation"]) == (str(run["id"]), 1)
    assert order["force"] is True
    assert (await world.get("vm", vm))["wanted"] is False


async def test_a_vm_bigger_than_any_host_is_refused_with_the_numbers(engine: Engine) -> None:
    world = engine.world
    await world.host("h1", memory_mib=1024)
    await world.host("h2", memory_mib=2048)
    vm = await world.vm(memory_mib=2049)
    error = await engine.refusal(StartVm(vm_id=vm))
    assert (error.code, type(error)) == ("VM_TOO_BIG", Invalid)
    assert (error.context["needs_mib"], error.context["largest_mib"]) == (2049, 2048)


async def test_a_vm_too_big_for_the_chosen_host_is_refused(engine: Engine) -> None:
    world = engine.world
    small = await world.host("h1", memory_mib=1024)
    await world.host("h2", memory_mib=2048)
    vm = await world.vm(memory_mib=1025)
    error = await engine.refusal(StartVm(vm_id=vm, host_id=small))
    assert (error.code, error.context["largest_mib"]) == ("VM_TOO_BIG", 1024)


async def test_a_host_outside_the_vms_cluster_is_refused(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    error = await engine.refusal(StartVm(vm_id=vm, host_id=new_id()))
    assert (error.code, type(error)) == ("HOST_NOT_FOUND", NotFound)


async def test_no_vm_starts_before_any_host_has_said_what_it_has(engine: Engine) -> None:
    await engine.world.host(memory_mib=0, state="reconciling")
    vm = await engine.world.vm()
    assert (await engine.refusal(StartVm(vm_id=vm))).code == "VM_TOO_BIG"


def failure(host: UUID, **values: Any) -> RecoverHost:
    given: dict[str, Any] = {"host_id": host, "epoch": 1, "why": "silent", "reported_by": "m1"}
    return RecoverHost(**given | values)


async def test_a_failed_host_gets_one_incident_with_its_evidence(engine: Engine) -> None:
    world = engine.world
    host = await world.host(state="connecting")
    heard = world.now - timedelta(seconds=4)
    reading = {"kind": "power_reading", "device": "bmc1", "verdict": "off", "took_s": 0.1}
    receipt = await engine.act(failure(host, last_answer_at=heard, readings=(reading,)))
    (incident,) = await engine.rows("incident")
    view = await engine.backend.run_query(GetIncident(incident_id=incident["id"]))
    assert (view.open, view.phase, view.operation_id) == (True, "decide", receipt.operation_id)
    assert view.phases_s == {"detect": 4.0}
    assert [(fact.device, fact.verdict) for fact in view.evidence] == [("bmc1", "off")]
    assert (await world.get("host", host))["state"] == "non_responsive"
    (operation,) = await engine.rows("operation")
    assert operation["incident_id"] == incident["id"]
    assert operation["order"]["incident_id"] == str(incident["id"])
    assert operation["order"]["context"]["incident_id"] == str(incident["id"])


async def test_a_failure_reported_ten_times_at_once_opens_one_incident(engine: Engine) -> None:
    host = await engine.world.host(state="connecting")
    reports = (engine.act(failure(host, reported_by=f"m{n}")) for n in range(10))
    ends = await asyncio.gather(*reports, return_exceptions=True)
    (incident,) = await engine.rows("incident")
    refused = [end for end in ends if isinstance(end, Conflict)]
    assert [error.code for error in refused] == ["INCIDENT_OPEN"] * 9
    assert {error.context["incident_id"] for error in refused} == {str(incident["id"])}
    for table in ("operation", "outbox", "entity_lock", "event"):
        assert len(await engine.rows(table)) == 1, table


async def test_a_report_about_another_epoch_is_refused(engine: Engine) -> None:
    host = await engine.world.host(state="connecting", epoch=2)
    error = await engine.refusal(failure(host))
    assert (error.code, type(error)) == ("EPOCH_STALE", Superseded)


@pytest.mark.parametrize("state", ["up", "reconciling", "maintenance", "error"])
async def test_only_a_host_that_misses_polls_can_fail(engine: Engine, state: str) -> None:
    host = await engine.world.host(state=state)
    assert (await engine.refusal(failure(host))).code == "HOST_STATE_FORBIDS"


async def test_a_host_that_is_down_with_nothing_left_to_take_does_not_fail(engine: Engine) -> None:
    host = await engine.world.host(state="down")
    assert (await engine.refusal(failure(host))).code == "NOTHING_TO_RECOVER"


async def test_a_host_out_of_service_can_fail_and_stays_out_of_service(engine: Engine) -> None:
    host = await engine.world.host(state="non_operational")
    await engine.act(failure(host))
    assert (await engine.world.get("host", host))["state"] == "non_operational"


async def test_a_recovery_waits_for_an_operation_that_works_on_its_host(engine: Engine) -> None:
    world = engine.world
    host = await world.host(state="connecting")
    await world.take("host", host, await world.operation(host, kind="host.other"))
    assert (await engine.refusal(failure(host))).code == "OBJECT_BUSY"


@pytest.mark.parametrize(
    "state", ["down", "non_operational", "maintenance", "error", "non_responsive"]
)
async def test_a_host_out_of_service_is_activated_again(engine: Engine, state: str) -> None:
    host = await engine.world.host(state=state, epoch=3)
    await engine.act(ActivateHost(host_id=host))
    assert (await engine.world.get("host", host))["state"] == "reconciling"
    (operation,) = await engine.rows("operation")
    assert operation["order"]["host"]["epoch"] == 3


@pytest.mark.parametrize("state", ["up", "connecting", "fencing"])
async def test_a_host_in_service_is_not_activated(engine: Engine, state: str) -> None:
    host = await engine.world.host(state=state)
    assert (await engine.refusal(ActivateHost(host_id=host))).code == "HOST_STATE_FORBIDS"


async def test_a_host_is_not_activated_while_its_death_is_being_judged(engine: Engine) -> None:
    world = engine.world
    host = await world.host(state="non_responsive")
    incident = await world.incident(host)
    assert (await engine.refusal(ActivateHost(host_id=host))).code == "HOST_STATE_FORBIDS"
    await world.do(incidents.enter_phase, incident, "start", world.now)
    await engine.act(ActivateHost(host_id=host))


async def test_a_disarmed_cluster_still_accepts_what_people_ask_for(engine: Engine) -> None:
    world = engine.world
    await world.host()
    vm = await world.vm()
    await world.do(inventory.arm_cluster, world.cluster_id, armed=False)
    assert not (await engine.act(StartVm(vm_id=vm))).replayed

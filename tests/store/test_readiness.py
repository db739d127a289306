"""The rows behind the wait for a VM: who runs since when, when it was ready, one warning."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from activities.readiness import ReadyFound, ReadyOrder
from domain.readiness import ReadyRule, ReadyWhen
from engine.actions.vm_config import CreateVm, EditVm
from engine.queries.inventory import GetVm
from engine.records.readiness import ReadyRecords
from store import incidents
from tests.store.engine_room import Engine, columns
from tests.store.test_recovery_records import Death
from tests.store.world import START

pytestmark = pytest.mark.store

RULE = ReadyRule(when=ReadyWhen.TCP, host="db", port=5432)


def records(engine: Engine) -> ReadyRecords:
    return ReadyRecords(engine.world.database, engine.world.clock)


async def wait_for(engine: Engine, vm: UUID) -> ReadyOrder:
    incident = await engine.world.incident(await engine.world.host("dead", state="down"))
    fields: dict[str, Any] = {"operation_id": uuid4(), "incident_id": incident}
    return ReadyOrder(**fields, vm_id=vm, vm_name="db", rule=RULE, deadline_s=1)


async def test_only_a_run_that_was_read_back_as_running_counts_and_from_then_on(
    engine: Engine,
) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    assert await records(engine).running(vm) is None
    run = await world.running(vm, host)
    world.later(7)
    found = await records(engine).running(vm)
    assert found is not None
    assert (found.run.run_id, found.since_s) == (run["id"], 7)
    world.later(-60)
    found = await records(engine).running(vm)
    assert found is not None
    assert found.since_s == 0, "a clock that was set back makes nobody wait less"
    await world.stopping(run["id"])
    assert await records(engine).running(vm) is None


async def test_one_that_is_not_ready_raises_one_warning_however_often_it_is_told(
    engine: Engine,
) -> None:
    order = await wait_for(engine, await engine.world.vm())
    for _ in range(3):
        await records(engine).settled(order, ReadyFound(ready=False, why="db is not ready"))
    (event,) = await engine.rows("event")
    assert (event["type"], event["subject_id"]) == ("vm.not_ready", order.vm_id)
    assert event["data"]["why"] == "db is not ready; its dependants start"
    assert columns(await engine.rows("incident"), "phases") == [{}]


async def test_the_last_vm_that_was_ready_ends_the_phase_and_the_incident_goes_on(
    engine: Engine,
) -> None:
    world = engine.world
    order = await wait_for(engine, await world.vm())
    good = ReadyFound(ready=True, why="db is ready")
    for after_s in (0, 5, -30):
        world.later(after_s)
        await records(engine).settled(order, good)
    (incident,) = await engine.rows("incident")
    last = START.replace(second=START.second + 5).isoformat()
    assert (incident["phase"], incident["phases"]) == ("decide", {"ready": last})
    await world.do(incidents.note_ready, order.incident_id, START)
    assert columns(await engine.rows("incident"), "phases") == [{"ready": last}]


async def test_a_rule_is_kept_shown_changed_and_dropped(engine: Engine) -> None:
    world = engine.world
    wish = CreateVm(cluster_id=world.cluster_id, name="db", memory_mib=64, ready=RULE)
    await engine.act(wish)
    (vm,) = columns(await engine.rows("vm"), "id")
    assert (await engine.backend.run_query(GetVm(vm_id=vm))).ready == RULE
    agent = ReadyRule(when=ReadyWhen.AGENT, limit_s=60)
    await engine.act(EditVm(vm_id=vm, ready=agent))
    assert (await engine.backend.run_query(GetVm(vm_id=vm))).ready == agent
    await engine.act(EditVm(vm_id=vm, memory_mib=128))
    assert (await engine.backend.run_query(GetVm(vm_id=vm))).ready == agent
    await engine.act(EditVm(vm_id=vm, ready=None))
    assert (await engine.backend.run_query(GetVm(vm_id=vm))).ready is None


async def test_a_recovery_is_told_the_rule_and_a_guest_gets_a_channel_for_its_agent(
    engine: Engine,
) -> None:
    dead = await engine.world.host("h1")
    await engine.world.host("h2")
    vm = await engine.world.vm("db", protected=True)
    await engine.world.running(vm, dead)
    rule = ReadyRule(when=ReadyWhen.AGENT)
    await engine.act(EditVm(vm_id=vm, ready=rule))
    death = await Death(engine, dead).build()
    (restart,) = (await death.claim()).restarts
    assert restart.ready == rule
    assert restart.run is not None
    assert restart.run.spec.agent


def test_a_rule_without_what_it_needs_is_no_request() -> None:
    wish = {"cluster_id": uuid4(), "name": "db", "memory_mib": 64, "ready": {"when": "tcp"}}
    with pytest.raises(ValueError, match="host and port"):
        CreateVm.model_validate(wish)

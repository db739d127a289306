"""Dependants start once the VM that they wait for is ready, and starts take turns on a host."""

from datetime import datetime

import pytest

from domain.hosts import HostEvent
from domain.readiness import ReadyRule, ReadyWhen
from domain.start_turns import STARTS_AT_LIMIT
from engine.actions.clusters import EditCluster
from engine.actions.vm_config import EditVm
from store.rows import Row
from tests.fakes import Gate
from tests.workflow import failovers
from tests.workflow.bench import POLICY, Bench, quick

pytestmark = pytest.mark.workflow

SOON = {"limit_s": 1.2}


async def ready(engine: Bench, vm: str, rule: ReadyRule) -> None:
    await engine.act(EditVm(vm_id=engine.vms[vm], ready=rule))


async def runs(engine: Bench) -> dict[str, Row]:
    """The active run of each VM."""
    names = {vm_id: name for name, vm_id in engine.vms.items()}
    return {names[run["vm_id"]]: run for run in await engine.rows("vm_run") if run["active"]}


async def steps(engine: Bench, name: str) -> list[Row]:
    return [row for row in await engine.rows("step") if row["name"] == name]


async def test_a_dependant_starts_once_the_agent_of_its_vm_answers(engine: Bench) -> None:
    operation = await failovers.a_dependant_starts_once_its_vm_is_ready(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    looks = await steps(engine, "recovery.look_ready")
    assert {(step["operation_id"], step["state"]) for step in looks} == {(operation, "succeeded")}
    last = max(looks, key=lambda row: row["finished_at"])
    assert last["detail"] == "db is ready: its guest agent answers"
    assert last["finished_at"] <= (await runs(engine))["web"]["started_at"]
    assert "vm.not_ready" not in {row["type"] for row in await engine.rows("event")}
    (incident,) = await engine.rows("incident")
    assert last["started_at"] <= datetime.fromisoformat(incident["phases"]["ready"])
    assert await engine.broken() == []


async def test_a_dependant_waits_while_a_port_is_closed(engine: Bench) -> None:
    await failovers.guests(engine)
    await ready(engine, "db", ReadyRule(when=ReadyWhen.TCP, host="db", port=5432))
    engine.centre.not_ready.add(engine.vms["db"])
    door = engine.centre.before["door"] = Gate()
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")
    await door.reached.wait()
    children = {row["target_name"]: row for row in await engine.children_of(operation, "vm.start")}
    assert (children["web"]["state"], children["web"]["run_id"]) == ("pending", None)
    engine.centre.not_ready.clear()
    door.open()
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_dependants_of_a_vm_that_never_gets_ready_start_after_its_limit_and_a_warning(
    engine: Bench,
) -> None:
    await failovers.guests(engine)
    await ready(engine, "db", ReadyRule(when=ReadyWhen.AGENT, **SOON))
    engine.centre.not_ready.add(engine.vms["db"])
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")
    assert (await engine.ended(operation))["state"] == "succeeded"
    (warning,) = [row for row in await engine.rows("event") if row["type"] == "vm.not_ready"]
    assert (warning["subject_id"], warning["operation_id"]) == (engine.vms["db"], operation)
    assert warning["data"]["why"] == (
        "db is not ready: waited 1.2 s in vain until its guest agent answers; its dependants start"
    )
    started = await runs(engine)
    waited = started["web"]["started_at"] - started["db"]["started_at"]
    assert waited.total_seconds() >= 1.2


async def test_a_delay_is_counted_from_when_the_vm_runs(engine: Bench) -> None:
    await failovers.guests(engine)
    await ready(engine, "db", ReadyRule(when=ReadyWhen.DELAY, delay_s=1.5))
    engine.centre.hosts["h1"].lose_power()
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    started = await runs(engine)
    waited = started["web"]["started_at"] - started["db"]["started_at"]
    assert waited.total_seconds() >= 1.5
    assert "vm.not_ready" not in {row["type"] for row in await engine.rows("event")}


async def test_a_vm_that_did_not_start_is_not_waited_for(engine: Bench) -> None:
    await failovers.guests(engine)
    await ready(engine, "db", ReadyRule(when=ReadyWhen.AGENT))
    engine.centre.refusing[engine.vms["db"]] = 1000
    engine.centre.hosts["h1"].lose_power()
    assert (await engine.ended(await engine.report("h1")))["state"] == "failed"
    assert await steps(engine, "recovery.look_ready") == []
    assert engine.copies("web") != []


async def test_a_dependant_starts_though_another_vm_is_waited_for_much_longer(
    engine: Bench,
) -> None:
    await failovers.guests(engine)  # web depends on db
    await ready(engine, "db", ReadyRule(when=ReadyWhen.TCP, host="db", port=5432, limit_s=3600))
    await ready(engine, "mail", ReadyRule(when=ReadyWhen.DELAY, delay_s=3600))
    engine.centre.not_ready.add(engine.vms["db"])
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")

    async def both_are_waited_for() -> bool:
        looks = await steps(engine, "recovery.look_ready")
        return any("are not ready yet" in str(row["detail"]) for row in looks)

    await engine.until(both_are_waited_for, "they were never waited for together")
    engine.centre.not_ready.clear()

    async def dependant_runs() -> bool:
        return len(engine.copies("web")) == 1

    await engine.until(dependant_runs, "web waits for a VM that it does not depend on")
    assert (await engine.operation(operation))["state"] == "running"


async def test_more_may_be_waited_for_than_steps_may_be_at_work_and_hold_up_nobody(
    engine: Bench,
) -> None:
    await engine.add_host("h4", memory_mib=4096)
    names = [f"db{number}" for number in range(25)]
    for name in names:
        engine.centre.not_ready.add(await engine.add_vm(name, "h1", memory_mib=16))
        await ready(engine, name, ReadyRule(when=ReadyWhen.AGENT, limit_s=3600))
    await engine.add_vm("other")
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")

    async def all_are_waited_for() -> bool:
        looks = await steps(engine, "recovery.look_ready")
        return any(f"and {len(names) - 3} more are not" in str(row["detail"]) for row in looks)

    await engine.until(all_are_waited_for, "they were never waited for all at once")
    assert (await engine.ended(await engine.start("other")))["state"] == "succeeded"
    assert (await engine.operation(operation))["state"] == "running"
    engine.centre.not_ready.clear()
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_starts_on_one_host_take_turns_in_the_order_of_their_priority(engine: Bench) -> None:
    with quick(POLICY.model_copy(update={"starts_per_host": 1, "start_deadline_s": 30})):
        for n in range(4):
            await engine.add_vm(f"vm{n}", "h1", priority=90 - n)
        assert (await engine.ended(await engine.maintain("h3")))["state"] == "succeeded"
        gate = engine.centre.before["create"] = Gate()
        engine.centre.hosts["h1"].lose_power()
        operation = await engine.report("h1")
        await gate.reached.wait()
        begun = [row for row in await engine.children_of(operation, "vm.start") if row["run_id"]]
        assert [row["target_name"] for row in begun] == ["vm0"]
        gate.open()
        assert (await engine.ended(operation))["state"] == "succeeded"
    started = await runs(engine)
    order = sorted(started, key=lambda name: started[name]["started_at"])
    assert order == ["vm0", "vm1", "vm2", "vm3"]
    assert await engine.broken() == []


async def test_two_recoveries_onto_one_survivor_start_no_more_there_at_once_than_one_may(
    engine: Bench,
) -> None:
    at_once: list[int] = []
    gate = Gate()

    async def counted() -> None:
        at_once.append([run["state"] for run in await engine.rows("vm_run")].count("starting"))
        await gate()

    await engine.act(EditCluster(cluster_id=engine.cluster_id, starts_per_host=1))
    with quick(POLICY.model_copy(update={"starts_per_host": 1, "start_deadline_s": 30})):
        for n in range(6):
            await engine.add_vm(f"vm{n}", f"h{1 + n % 2}", memory_mib=64, priority=90 - n)
        engine.centre.before["create"] = counted
        for name in ("h1", "h2"):
            engine.centre.hosts[name].lose_power()
            await engine.watcher.missed(name)
        recoveries = [await engine.report(name) for name in ("h1", "h2")]
        await gate.reached.wait()

        async def one_waits() -> bool:
            codes = [row["reason_code"] for row in await engine.rows("operation")]
            return codes.count(STARTS_AT_LIMIT) == 1

        await engine.until(one_waits, "nobody waited for its turn")
        gate.open()
        for recovery in recoveries:
            assert (await engine.ended(recovery))["state"] == "succeeded"
    assert at_once == [1] * 6
    assert [engine.copies(f"vm{n}") for n in range(6)] == [["h3"]] * 6
    assert await engine.broken() == []


async def test_a_start_whose_host_leaves_service_before_its_turn_comes_runs_elsewhere(
    engine: Bench,
) -> None:
    await engine.act(EditCluster(cluster_id=engine.cluster_id, starts_per_host=1))
    for name in ("db", "web"):
        await engine.add_vm(name, "h1", memory_mib=64)
    assert (await engine.ended(await engine.maintain("h2")))["state"] == "succeeded"
    gate = engine.centre.before["create"] = Gate()
    engine.centre.hosts["h1"].lose_power()
    recovery = await engine.report("h1")
    await gate.reached.wait()

    async def one_waits() -> bool:
        codes = [row["reason_code"] for row in await engine.rows("operation")]
        return codes.count(STARTS_AT_LIMIT) == 1

    await engine.until(one_waits, "nobody waited for its turn")
    assert (await engine.ended(await engine.activate("h2")))["state"] == "succeeded"
    await engine.move_host("h3", HostEvent.DRAIN)
    gate.open()
    assert (await engine.ended(recovery))["state"] == "succeeded"
    assert sorted([*engine.copies("db"), *engine.copies("web")]) == ["h2", "h3"]
    assert await engine.broken() == []


async def test_a_start_that_hangs_keeps_nobody_waiting_for_ever(engine: Bench) -> None:
    with quick(POLICY.model_copy(update={"starts_per_host": 1, "start_deadline_s": 1})):
        for n in range(2):
            await engine.add_vm(f"vm{n}", "h1", priority=90 - n)
        assert (await engine.ended(await engine.maintain("h3")))["state"] == "succeeded"
        gate = engine.centre.before["define"] = Gate()
        engine.centre.hosts["h1"].lose_power()
        operation = await engine.report("h1")

        async def both() -> bool:
            rows = await engine.children_of(operation, "vm.start")
            return [bool(row["run_id"]) for row in rows] == [True, True]

        await engine.until(both, "the second never got its turn")
        gate.open()
        assert (await engine.ended(operation))["state"] == "succeeded"

"""A VM waits for one that it depends on also where another recovery brings that one back."""

import pytest

from domain import dependencies
from engine.actions.vm_config import EditVm
from tests.workflow.bench import Bench
from tests.workflow.failovers import (
    a_rack_loses_its_power,
    a_vm_waits_for_one_that_another_recovery_brings_back,
    until_it_waits_for_another,
)

pytestmark = pytest.mark.workflow


async def test_it_is_started_once_that_one_runs_again_and_says_so_meanwhile(engine: Bench) -> None:
    recovery = await a_vm_waits_for_one_that_another_recovery_brings_back(engine)
    assert (await engine.operation(recovery))["state"] == "succeeded"
    began = {
        run["vm_id"]: run["started_at"] for run in await engine.rows("vm_run") if run["active"]
    }
    assert began[engine.vms["db"]] < began[engine.vms["app"]]
    assert await engine.broken() == []


async def test_meanwhile_it_says_what_it_waits_for_and_takes_no_room(engine: Bench) -> None:
    await a_rack_loses_its_power(engine)
    start = await until_it_waits_for_another(engine, await engine.report("h2"))
    assert "db, which it depends on, is to be back first" in start["waiting_for"]
    assert (engine.copies("db"), engine.copies("app")) == ([], [])
    runs = [row for row in await engine.rows("vm_run") if row["active"]]
    assert [run["vm_id"] for run in runs] == [engine.vms["db"]]


async def test_what_waits_leaves_the_only_room_to_what_it_waits_for(engine: Bench) -> None:
    await engine.add_vm("db", "h1", memory_mib=700)
    await engine.add_vm("app", "h2", memory_mib=700, after=("db",))
    for name in ("h1", "h2"):
        engine.centre.hosts[name].lose_power()
    await engine.watcher.missed("h1")
    second = await engine.report("h2")
    await until_it_waits_for_another(engine, second)
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    assert engine.copies("db") == ["h3"]

    async def wants_room() -> bool:
        found = await engine.children_of(second, "vm.start")
        return [row["reason_code"] for row in found] == ["NO_ROOM"]

    await engine.until(wants_room, "it never said that it has no room by now")


async def test_more_may_wait_than_steps_may_be_at_work_and_hold_up_nobody(engine: Bench) -> None:
    await engine.add_host("h4", memory_mib=4096)
    await engine.add_vm("db", "h1")
    names = [f"app{number}" for number in range(25)]
    for name in names:
        await engine.add_vm(name, "h2", memory_mib=16, after=("db",))
    for name in ("h1", "h2"):
        engine.centre.hosts[name].lose_power()
    await engine.watcher.missed("h1")
    second = await engine.report("h2")

    async def all_wait() -> bool:
        found = await engine.children_of(second, "vm.start")
        return [row["reason_code"] for row in found] == ["DEPENDENCY"] * len(names)

    await engine.until(all_wait, "they never waited for db")
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    assert (await engine.ended(second))["state"] == "succeeded"
    assert [len(engine.copies(name)) for name in names] == [1] * len(names)
    assert await engine.broken() == []


async def test_it_is_started_once_that_one_is_not_to_run_any_more(engine: Bench) -> None:
    await a_rack_loses_its_power(engine)
    second = await engine.report("h2")
    await until_it_waits_for_another(engine, second)
    await engine.act(EditVm(vm_id=engine.vms["db"], protected=False))
    assert (await engine.ended(second))["state"] == "succeeded"
    assert len(engine.copies("app")) == 1


async def test_it_is_started_without_that_one_after_a_limit(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "BACK_LIMIT_S", 1.0)
    await a_rack_loses_its_power(engine)
    assert (await engine.ended(await engine.report("h2")))["state"] == "succeeded"
    assert (engine.copies("db"), len(engine.copies("app"))) == ([], 1)


async def test_one_that_runs_elsewhere_is_not_waited_for(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    await engine.add_vm("app", "h2", after=("db",))
    engine.centre.hosts["h2"].lose_power()
    recovery = await engine.report("h2")
    assert (await engine.ended(recovery))["state"] == "succeeded"
    steps = [row["name"] for row in await engine.rows("step")]
    assert "recovery.look_back" not in steps

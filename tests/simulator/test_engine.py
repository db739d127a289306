"""The engine on a stage: its processes die, freeze and come back; nothing is lost or doubled."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from domain.errors import Unavailable
from engine.actions.vms import StartVm, StopVm
from simulator.loop import Process
from simulator.setup import Setup, VmSetup
from simulator.stage import PERSON, Stage, on_stage, set_stage
from simulator.world.network import Net

pytestmark = pytest.mark.unit

SETUP = Setup.small(hosts=3, vms=4)
WARM_S = 7.0
ENDS_S = 120.0


def played(seed: int, act: Callable[[Stage], Awaitable[Any]], setup: Setup = SETUP) -> Stage:
    """A stage on which something was played, once the engine was warm; nothing was defective."""
    stage = set_stage(seed, setup)

    async def main() -> None:
        stage.engine.start()
        await asyncio.sleep(WARM_S)
        await act(stage)

    with on_stage(stage) as run:
        run(main())
    assert stage.defects == []
    assert stage.loop.errors == []
    assert stage.centre.doubles == []
    return stage


async def recovered(stage: Stage) -> None:
    """Wait until an incident was there and is closed."""

    def closed() -> bool:
        found = stage.rows.table("incident")
        return bool(found) and not any(row["open"] for row in found)

    await stage.until(closed, "the incident never closed", ENDS_S)


def running(stage: Stage) -> dict[str, list[str]]:
    names = {row["id"]: row["name"] for row in stage.rows.table("vm")}
    return {name: stage.centre.copies(vm_id) for vm_id, name in names.items()}


def started_twice(stage: Stage) -> list[tuple[str, int]]:
    """VMs and generations that began more than once."""
    starts = [
        (facts["vm"], facts["generation"])
        for _at_s, kind, facts in stage.events
        if kind == "guest.started"
    ]
    return sorted({each for each in starts if starts.count(each) > 1})


async def cut(stage: Stage) -> None:
    stage.centre.hosts["h1"].lose_power()
    await recovered(stage)


def test_after_a_power_cut_each_vm_of_the_host_runs_elsewhere_once() -> None:
    stage = played(1, cut)
    copies = running(stage)
    assert {len(found) for found in copies.values()} == {1}
    assert "h1" not in {host for found in copies.values() for host in found}
    assert started_twice(stage) == []


def test_the_same_seed_plays_the_same_and_another_does_not() -> None:
    first, again, other = played(1, cut), played(1, cut), played(2, cut)
    assert repr(first.events) == repr(again.events)
    assert repr(first.events) != repr(other.events)


@pytest.mark.parametrize("name", ["worker", "fencing", "monitor", "relay"])
@pytest.mark.parametrize("after", ["recovery.assess", "fencing.read_back", "guest.start"])
def test_a_process_killed_in_the_middle_of_a_recovery_doubles_and_loses_nothing(
    name: str, after: str
) -> None:
    async def act(stage: Stage) -> None:
        stage.centre.hosts["h1"].lose_power()
        await stage.until(lambda: _began(stage, after), f"{after} never began", ENDS_S)
        stage.engine.kill(f"{name}@engine-1")
        await recovered(stage)

    stage = played(3, act)
    assert {len(found) for found in running(stage).values()} == {1}
    assert started_twice(stage) == []


def _began(stage: Stage, step: str) -> bool:
    return any(kind == "step.started" and f["subject"] == step for _s, kind, f in stage.events)


def test_workflows_that_lose_their_cache_all_the_time_go_on_by_replay() -> None:
    async def act(stage: Stage) -> None:
        async def evict() -> None:
            while True:
                await asyncio.sleep(0.02)
                worker = stage.engine.running["worker@engine-1"].worker
                assert worker is not None
                worker.evict_all()

        evicting = asyncio.create_task(evict())
        await cut(stage)
        evicting.cancel()

    assert {len(found) for found in running(played(4, act)).values()} == {1}


def test_a_frozen_worker_that_wakes_up_late_does_not_start_a_second_copy() -> None:
    async def act(stage: Stage) -> None:
        stage.centre.hosts["h1"].lose_power()
        await stage.until(lambda: _began(stage, "guest.start"), "nothing was started", ENDS_S)
        frozen = stage.engine.running["worker@engine-1"].process
        frozen.freeze()
        stage.engine.start("engine-2", ("worker",))
        await recovered(stage)
        frozen.thaw(stage.loop)
        await asyncio.sleep(10)

    stage = played(5, act)
    assert {len(found) for found in running(stage).values()} == {1}


def test_a_recovery_waits_for_temporal_to_come_back() -> None:
    async def act(stage: Stage) -> None:
        stage.server.switch(up=False)
        stage.centre.hosts["h1"].lose_power()
        await asyncio.sleep(30)
        assert stage.rows.table("incident", "open = 1")
        assert not [e for e in stage.events if e[1] == "workflow.started"]
        stage.server.switch(up=True)
        await recovered(stage)

    assert {len(found) for found in running(played(6, act)).values()} == {1}


def test_a_database_that_is_away_is_said_so_and_serves_again_without_a_restart() -> None:
    async def act(stage: Stage) -> None:
        vm_id: UUID = stage.rows.find("vm", "vm1")["id"]
        stage.engine.database_up = False
        with pytest.raises(Unavailable, match="does not answer"):
            await stage.act(StopVm(vm_id=vm_id))
        stage.engine.database_up = True
        assert (await stage.done(StopVm(vm_id=vm_id)))["state"] == "succeeded"

    assert running(played(7, act))["vm1"] == []


@pytest.mark.parametrize("away_s", [4, 8, 30])
def test_a_database_away_in_the_middle_of_a_restart_does_not_end_the_guest(away_s: float) -> None:
    async def act(stage: Stage) -> None:
        began = len(stage.events)
        stage.centre.hosts["h1"].lose_power()
        await stage.until(
            lambda: any(kind == "guest.started" for _s, kind, _f in stage.events[began:]),
            "nothing was started",
            ENDS_S,
        )
        stage.engine.database_up = False
        await asyncio.sleep(away_s)
        stage.engine.database_up = True
        await recovered(stage)

    stage = played(11, act)
    assert [row["outcome"] for row in stage.rows.table("incident")] == ["recovered"]
    assert {len(found) for found in running(stage).values()} == {1}


def test_the_last_host_in_service_keeps_its_power_when_the_engines_own_link_is_cut() -> None:
    async def act(stage: Stage) -> None:
        await cut(stage)
        stage.centre.networks[Net.MANAGEMENT].cut_both("engine-1", "h2")
        await asyncio.sleep(120)
        (waits,) = stage.rows.table("operation", "state = 'waiting'")
        assert "sees no other host either" in waits["waiting_for"]

    stage = played(12, act, Setup.small(hosts=2, vms=3))
    assert stage.centre.hosts["h2"].powered
    assert {len(found) for found in running(stage).values()} == {1}


def test_an_api_killed_between_commit_and_start_leaves_the_start_to_the_relay() -> None:
    async def act(stage: Stage) -> None:
        stage.centre.networks[Net.MANAGEMENT].cut("engine-1", "temporal")
        operation = await stage.act(StartVm(vm_id=stage.rows.find("vm", "db")["id"]))
        stage.engine.kill("api@engine-1")
        await asyncio.sleep(2)
        stage.centre.networks[Net.MANAGEMENT].heal("engine-1", "temporal")
        await stage.until(lambda: stage.rows.ended(operation), "it never ended", ENDS_S)
        assert stage.rows.operation(operation)["state"] == "succeeded"

    setup = Setup(hosts=SETUP.hosts, vms=(*SETUP.vms, VmSetup(name="db")))
    stage = played(8, act, setup)
    assert len(running(stage)["db"]) == 1
    assert started_twice(stage) == []


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_repeated_without_doubling(side: str) -> None:
    failed: list[str] = []

    def trip(stage: Stage) -> Callable[[Process, str], None]:
        def before(process: Process, statement: str) -> None:
            if statement != "COMMIT" or not process.name.startswith("worker") or len(failed) >= 5:
                return
            failed.append(process.name)
            if side == "after":
                stage.memory.raw.execute("COMMIT")
            raise sqlite3.OperationalError("disk I/O error")

        return before

    async def act(stage: Stage) -> None:
        stage.engine.before_statement = trip(stage)
        await cut(stage)

    stage = played(9, act)
    assert len(failed) == 5
    assert {len(found) for found in running(stage).values()} == {1}
    assert started_twice(stage) == []


def test_the_stage_is_built_by_the_engines_own_actions() -> None:
    stage = set_stage(10, SETUP)
    done = {(row["kind"], row["state"]) for row in stage.rows.table("operation")}
    kinds = ("cluster.create", "host.add", "fence.add", "vm.create", "vm.start")
    assert done >= {(kind, "succeeded") for kind in kinds}
    assert PERSON.principal in {row["principal"] for row in stage.rows.table("operation")}

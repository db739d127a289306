"""Starting VMs: placed, started, undone, waiting for room, cancelled."""

import pytest

from engine.actions.clusters import EditCluster
from engine.queries.explaining import ExplainOperation
from tests.workflow import scenarios
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def test_a_vm_is_placed_started_and_read_back(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_vm_starts(engine))
    assert ended["state"] == "succeeded"
    assert len(engine.copies("db")) == 1
    assert await engine.broken() == []


async def test_a_start_explains_which_host_it_chose_and_why_it_rejected_the_others(
    engine: Bench,
) -> None:
    await engine.add_vm("big", "h1", memory_mib=500)
    await engine.add_vm("small", "h3", memory_mib=200)
    await engine.add_vm("db")
    operation = await engine.start("db")
    assert (await engine.ended(operation))["state"] == "succeeded"
    asked = ExplainOperation(operation_id=operation)
    (one,) = (await engine.backend.run_query(asked)).decisions
    assert (one.question, one.subject_name, one.times) == ("vm_place", "db", 1)
    assert [one.chosen] == engine.copies("db") == ["h2"]
    free = {host: (await engine.host(host))["memory_mib"] for host in ("h1", "h2", "h3")}
    assert {rejected.option: rejected.why for rejected in one.rejected} == {
        "h1": f"{free['h1'] - 500} MiB are free, on h2 {free['h2']}",
        "h3": f"{free['h3'] - 200} MiB are free, on h2 {free['h2']}",
    }


async def test_a_start_without_room_waits_and_goes_on_when_there_is_room(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_start_waits_for_room(engine))
    assert (ended["state"], ended["reason_code"]) == ("succeeded", None)
    assert engine.copies("db") == ["h2"]
    assert await engine.broken() == []


async def test_a_start_without_room_looks_again_by_itself(engine: Bench) -> None:
    await engine.add_vm("big", "h1", memory_mib=1000)
    await engine.add_vm("db")
    operation = await engine.start("db", "h1")
    waiting = await engine.waits(operation, "NO_ROOM")
    assert "128 MiB" in waiting["waiting_for"]
    await engine.ended(await engine.stop("big", force=True))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_a_start_without_vcpus_waits_with_numbers_and_runs_once_another_vm_has_ended(
    engine: Bench,
) -> None:
    await engine.act(EditCluster(cluster_id=engine.cluster_id, vcpu_overcommit=1.0))
    cpus = engine.centre.hosts["h1"].cpus
    await engine.add_vm("wide", "h1", vcpus=cpus)
    await engine.add_vm("db", vcpus=2)
    operation = await engine.start("db", "h1")
    waiting = await engine.waits(operation, "NO_ROOM")
    assert f"no host has 2 vCPUs left for db: h1 holds {cpus} of {cpus};" in waiting["waiting_for"]
    assert engine.copies("db") == []
    await engine.ended(await engine.stop("wide", force=True))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert (await engine.host("h1"))["vcpus_reserved"] == 2
    assert await engine.broken() == []


async def test_a_start_that_waits_for_vcpus_runs_once_more_are_allowed(engine: Bench) -> None:
    await engine.act(EditCluster(cluster_id=engine.cluster_id, vcpu_overcommit=1.0))
    cpus = engine.centre.hosts["h1"].cpus
    await engine.add_vm("wide", "h1", vcpus=cpus)
    await engine.add_vm("db")
    operation = await engine.start("db", "h1")
    await engine.waits(operation, "NO_ROOM")
    await engine.act(EditCluster(cluster_id=engine.cluster_id, vcpu_overcommit=2.0))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_a_start_that_the_host_refuses_leaves_nothing_there(engine: Bench) -> None:
    operation = await scenarios.a_start_that_libvirt_refuses_is_undone(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "LIBVIRT_REFUSED")
    assert engine.centre.hosts["h1"].domains == {}
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0
    assert await engine.broken() == []


async def test_a_guest_that_ends_at_once_is_a_start_that_failed(engine: Bench) -> None:
    operation = await scenarios.a_guest_that_ends_at_once_is_a_failed_start(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "GUEST_ENDED_AT_ONCE")
    assert engine.centre.hosts["h1"].domains == {}
    assert await engine.broken() == []


async def test_a_start_that_one_host_refuses_runs_on_another(engine: Bench) -> None:
    operation = await scenarios.a_start_that_one_host_refuses_is_tried_on_another(engine)
    ended = await engine.operation(operation)
    first, second = sorted(await engine.rows("vm_run"), key=lambda run: run["generation"])
    assert (first["state"], first["end_reason"]) == ("ended", "withdrawn")
    assert (second["state"], second["host_id"] != first["host_id"]) == ("running", True)
    assert "it failed before on h1 (LIBVIRT_REFUSED)" in ended["summary"]
    assert engine.centre.hosts["h1"].domains == {}
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0
    assert await engine.broken() == []


async def test_a_start_that_every_host_refuses_tells_of_each(engine: Bench) -> None:
    operation = await scenarios.a_start_that_every_host_refuses_fails(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "LIBVIRT_REFUSED")
    for host in ("h1 6 times (", "h2 5 times (", "h3 5 times ("):
        assert host in ended["problem"]["detail"]
    assert [run["state"] for run in await engine.rows("vm_run")] == ["ended"] * 16
    assert {host.name: host.domains for host in engine.centre.hosts.values()} == {
        name: {} for name in ("h1", "h2", "h3")
    }
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_no_other_host_is_tried_before_the_first_was_read_without_the_guest(
    engine: Bench,
) -> None:
    await engine.add_vm("db")

    async def silent() -> None:
        engine.centre.before.pop("lookup", None)
        engine.centre.hosts["h1"].reachable = False

    # It is started, and nobody can say any more whether it runs.
    engine.centre.before["lookup"] = silent
    operation = await engine.start("db")

    async def failing() -> bool:
        steps = [row for row in await engine.rows("step") if row["name"] == "guest.withdraw"]
        return any(row["problem"] is not None or row["tries"] > 1 for row in steps)

    await engine.until(failing, "no try to give its start up has failed")
    runs = await engine.rows("vm_run")
    assert [(run["state"], run["active"]) for run in runs] == [("stopping", 1)]
    engine.centre.hosts["h1"].reachable = True
    await engine.ended(operation)
    assert len(engine.copies("db")) == 1
    assert engine.copies("db") != ["h1"]
    assert await engine.broken() == []


async def test_a_start_cancelled_while_it_waits_has_started_nothing(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_waiting_start_is_cancelled(engine))
    assert (ended["state"], ended["summary"]) == ("cancelled", "nothing was started")
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_cancel_while_it_is_placed_is_heeded_before_it_waits_for_room(
    engine: Bench,
) -> None:
    operation = await scenarios.a_start_is_cancelled_while_it_is_placed(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "nothing was started")
    assert not await scenarios.waited(engine, operation)
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_start_cancelled_under_way_is_undone_and_says_so(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.a_start_under_way_is_cancelled(engine))
    assert (ended["state"], ended["summary"]) == ("cancelled", "gone from h1")
    assert engine.copies("db") == []
    assert engine.centre.hosts["h1"].domains == {}
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []

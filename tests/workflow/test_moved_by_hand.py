"""VMs that somebody moves past the engine while the engine is to move them itself."""

from uuid import UUID

import pytest

from engine.clock import utc_now
from store import observations
from store.rows import Row
from tests.fakes import Gate
from tests.workflow.bench import Bench, relaying
from tests.workflow.stray_copies import move_by_hand

pytestmark = pytest.mark.workflow


async def polled(engine: Bench, host: str, *vms: str) -> None:
    """What the last poll of a host has shown."""
    guests = [{"vm_id": str(engine.vms[vm]), "name": vm, "state": "running"} for vm in vms]
    row: Row = {"host_id": engine.hosts[host], "memory_total_mib": 1, "memory_free_mib": 1}
    row |= {"cpus": 1, "took_s": 0.1, "guests": guests}
    now = utc_now()
    round_: Row = {"warm": True, "observations": [], "samples": [row]}
    round_ |= {"now": now, "watched_ms": int}
    await engine.database.write(lambda c: observations.record_round(c, "m1", 1, **round_))


async def held_before_its_move(engine: Bench, target: str, gate: Gate) -> UUID:
    """A migration of `db` that has its place, and has told libvirt nothing yet."""

    async def hold() -> None:
        if "migration.move" in {row["name"] for row in await engine.rows("step")}:
            await gate()

    engine.centre.before["open"] = hold
    operation = await engine.migrate("db", target)
    await gate.reached.wait()
    return operation


async def test_a_vm_that_somebody_moves_to_its_target_first_has_arrived_there(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    gate = Gate()
    operation = await held_before_its_move(engine, "h2", gate)
    move_by_hand(engine, "db", "h1", "h2")
    gate.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "db runs on h2")
    (_old, run) = sorted(await engine.rows("vm_run"), key=lambda row: int(row["generation"]))
    assert (run["host_id"], run["generation"], run["active"]) == (engine.hosts["h2"], 2, 1)
    assert engine.centre.hosts["h2"].domains[engine.vms["db"]].running == 2
    assert (engine.copies("db"), await engine.broken()) == (["h2"], [])


async def test_a_vm_that_another_host_shows_is_not_moved(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    await polled(engine, "h2", "db")
    operation = await engine.migrate("db", "h3")
    await engine.waits(operation, "NO_ROOM")
    said = (await engine.operation(operation))["waiting_for"]
    assert "the last poll of h2 shows a process of db" in said
    assert "`holdfast vm adopt-copy db --host h2`" in said
    await polled(engine, "h2")
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == (["h3"], [])


async def test_a_vm_that_went_elsewhere_meanwhile_is_not_started_beside_that(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    gate = Gate()
    operation = await held_before_its_move(engine, "h3", gate)
    move_by_hand(engine, "db", "h1", "h2")
    await polled(engine, "h2", "db")
    gate.open()
    await engine.waits(operation, "GUEST_ELSEWHERE")
    assert engine.copies("db") == ["h2"]
    engine.centre.hosts["h2"].domains.clear()
    await polled(engine, "h2")
    async with relaying(engine):
        await engine.ended(operation)
        await engine.idle()
    assert len(engine.copies("db")) == 1
    assert await engine.broken() == []

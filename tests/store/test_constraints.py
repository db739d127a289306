"""What the database itself refuses, past every function: I1, I2 and the one-of-a-kind rows."""

from typing import Any

import pytest
import sqlalchemy as sa

from store import runs
from store.ids import new_id
from store.rows import Row
from store.schema import entity_lock, host, operation
from store.schema_ha import death_certificate, incident, vm_run
from tests.store.world import World

pytestmark = pytest.mark.store

SECOND_ACTIVE = {"active": 1, "state": "running", "generation": 2}


async def refused(world: World, statement: sa.Executable) -> str:
    """The database's own words on a statement that it must not carry out."""
    with pytest.raises(sa.exc.IntegrityError) as refusal:
        await world.database.alone(lambda connection: connection.execute(statement))
    return str(refusal.value.orig).lower().replace("duplicate entry", "unique: duplicate entry")


async def carried_out(world: World, statement: sa.Executable) -> None:
    await world.database.alone(lambda connection: connection.execute(statement))


async def a_run(world: World) -> Row:
    return await world.running(await world.vm(), await world.host())


def update(run: Row, **values: Any) -> sa.Update:
    return vm_run.update().where(vm_run.c.id == run["id"]).values(**values)


async def test_a_second_active_run_of_a_vm_cannot_be_inserted(world: World) -> None:
    run = await a_run(world)
    second = run | {"id": new_id(), "host_id": await world.host("h2")} | SECOND_ACTIVE
    assert "unique" in await refused(world, vm_run.insert().values(**second))


async def test_a_closed_run_cannot_be_made_active_beside_another(world: World) -> None:
    old = await a_run(world)
    await world.do(runs.end, old["id"], "stopped", world.now)
    await world.running(old["vm_id"], await world.host("h2"))
    assert "unique" in await refused(world, update(old, active=1, state="running"))


async def test_a_generation_is_used_once_a_vm(world: World) -> None:
    run = await a_run(world)
    twin = run | {"id": new_id(), "active": None, "state": "ended"}
    assert "unique" in await refused(world, vm_run.insert().values(**twin))


@pytest.mark.parametrize(
    "values",
    [
        {"active": None},
        {"active": 2},
        {"active": 1, "state": "ended"},
        {"state": "no such state"},
    ],
    ids=str,
)
async def test_active_and_state_of_a_run_cannot_disagree(
    world: World, values: dict[str, Any]
) -> None:
    said = await refused(world, update(await a_run(world), **values))
    assert "ck_vm_run_active" in said


async def test_a_run_cannot_be_lost_without_a_certificate(world: World) -> None:
    run = await a_run(world)
    said = await refused(world, update(run, state="lost", active=None))
    assert "ck_vm_run_lost" in said


async def test_a_run_that_is_not_lost_names_no_certificate(world: World) -> None:
    run = await a_run(world)
    certificate = await world.certificate(run["host_id"])
    said = await refused(world, update(run, lost_certificate_id=certificate))
    assert "ck_vm_run_lost" in said


async def test_a_run_cannot_be_lost_under_another_hosts_certificate(world: World) -> None:
    run = await a_run(world)
    foreign = await world.certificate(await world.host("stranger"))
    lost = update(run, state="lost", active=None, lost_certificate_id=foreign)
    assert "foreign key" in await refused(world, lost)


async def test_a_run_cannot_be_lost_under_another_epochs_certificate(world: World) -> None:
    run = await a_run(world)
    await world.put("host", run["host_id"], epoch=2)
    later = await world.certificate(run["host_id"], epoch=2)
    lost = update(run, state="lost", active=None, lost_certificate_id=later)
    assert "foreign key" in await refused(world, lost)


async def test_a_run_can_be_lost_under_its_own_hosts_certificate(world: World) -> None:
    run = await a_run(world)
    own = await world.certificate(run["host_id"])
    await carried_out(world, update(run, state="lost", active=None, lost_certificate_id=own))
    assert (await world.run(run["id"]))["state"] == "lost"


async def test_a_lost_run_cannot_move_to_another_host_or_epoch(world: World) -> None:
    run = await a_run(world)
    own = await world.certificate(run["host_id"])
    assert await world.do(runs.lose, run["id"], own, world.now)
    other = await world.host("h2")
    assert "foreign key" in await refused(world, update(run, host_id=other))
    assert "foreign key" in await refused(world, update(run, epoch=2))


async def test_a_licence_has_to_be_a_certificate_that_exists(world: World) -> None:
    said = await refused(world, update(await a_run(world), licence_id=new_id()))
    assert "foreign key" in said


async def test_a_certificate_under_which_a_run_was_lost_cannot_be_deleted(world: World) -> None:
    run = await a_run(world)
    own = await world.certificate(run["host_id"])
    assert await world.do(runs.lose, run["id"], own, world.now)
    deleted = death_certificate.delete().where(death_certificate.c.id == own)
    assert "foreign key" in await refused(world, deleted)


async def test_a_host_has_one_valid_certificate_an_epoch(world: World) -> None:
    machine = await world.host()
    first = await world.certificate(machine)

    def copy(connection: sa.Connection) -> Row:
        query = sa.select(death_certificate).where(death_certificate.c.id == first)
        return dict(connection.execute(query).mappings().one())

    second = await world.database.alone(copy) | {"id": new_id()}
    assert "unique" in await refused(world, death_certificate.insert().values(**second))
    void = second | {"state": "void", "valid": None}
    await carried_out(world, death_certificate.insert().values(**void))


async def test_a_certificate_is_either_valid_or_void(world: World) -> None:
    first = await world.certificate(await world.host())
    half = death_certificate.update().where(death_certificate.c.id == first)
    assert "ck_death_certificate_valid" in await refused(world, half.values(state="void"))
    assert "ck_death_certificate_valid" in await refused(world, half.values(valid=None))


async def test_a_host_has_one_open_incident_an_epoch(world: World) -> None:
    machine = await world.host()
    first = await world.incident(machine)
    values: Row = {"id": new_id(), "host_id": machine, "epoch": 1, "phase": "decide", "phases": {}}
    values |= {"reported_by": "m2", "why": "silent", "opened_at": world.now}
    insert = incident.insert().values(**values, open=1)
    assert "unique" in await refused(world, insert)
    closed = incident.update().where(incident.c.id == first).values(open=None)
    await carried_out(world, closed)
    await carried_out(world, insert)


async def test_a_host_never_owes_negative_memory(world: World) -> None:
    machine = await world.host()
    less = host.update().where(host.c.id == machine).values(memory_reserved_mib=-1)
    assert "ck_host_reserved_not_negative" in await refused(world, less)


async def test_an_entity_has_one_exclusive_lock_and_it_belongs_to_an_operation(
    world: World,
) -> None:
    vm = await world.vm()
    await world.lock(vm, await world.operation())
    row: Row = {"entity_type": "vm", "entity_id": vm, "exclusive": 1, "acquired_at": world.now}
    second = entity_lock.insert().values(**row, operation_id=await world.operation())
    assert "unique" in await refused(world, second)
    row["entity_id"] = new_id()
    orphan = entity_lock.insert().values(**row, operation_id=new_id())
    assert "foreign key" in await refused(world, orphan)


async def test_an_operation_with_children_cannot_be_deleted(world: World) -> None:
    parent = await world.operation()
    await world.operation(parent_id=parent)
    gone = operation.delete().where(operation.c.id == parent)
    assert "foreign key" in await refused(world, gone)

"""A host that has rebooted by itself gets its VMs back in order, and not all at once."""

from uuid import UUID

import pytest

from activities.hosts import AdmitOrder
from domain.dependencies import BACK_LIMIT_S
from domain.operations import OperationState, Outcome
from domain.orders import Reconciliation
from domain.start_turns import STARTS_AT_LIMIT
from engine.actions.clusters import ArmCluster, EditCluster
from engine.closing import close_operation
from store import runs
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


async def rebooted(engine: Engine, *vms: UUID) -> None:
    """A host that lost these VMs in a reboot is brought into service again."""
    world = engine.world
    host = await world.host(memory_mib=4096)
    for vm in vms:
        await world.running(vm, host)
    await world.put("host", host, state="reconciling")
    activation = await world.operation(host, kind="host.activate", state="running")
    ref = await engine.ref(host)
    ended = await engine.hosts.settle_runs(ref, await engine.hosts.expected_runs(ref), ())
    assert len(ended) == len(vms)
    settled = Reconciliation(ended=ended, memory_mib=4096, cpus=4)
    await engine.hosts.admit(AdmitOrder(operation_id=activation, host=ref, settled=settled))


async def starts(engine: Engine) -> list[Row]:
    rows = [row for row in await engine.rows("operation") if row["parent_id"] is not None]
    return sorted(rows, key=lambda row: row["id"])


async def began(engine: Engine) -> list[str]:
    return [row["target_name"] for row in await starts(engine)]


async def runs_again(engine: Engine, start: Row) -> None:
    """Its start has ended well."""
    world = engine.world
    host = (await engine.rows("host"))[0]["id"]
    run = await world.placed(start["target_id"], host, operation_id=start["id"], epoch=2)
    assert await world.do(runs.begin_start, run["id"], start["id"])
    assert await world.do(runs.started, run["id"], world.now)
    outcome = Outcome(operation_id=start["id"], state=OperationState.SUCCEEDED)
    await world.do(close_operation, outcome, world.now)


async def test_the_most_important_come_first_and_no_more_at_once_than_the_cluster_allows(
    engine: Engine,
) -> None:
    world = engine.world
    await engine.act(EditCluster(cluster_id=world.cluster_id, starts_per_host=2))
    vms = [await world.vm(f"vm{n}", protected=True, priority=n, memory_mib=10) for n in range(1, 5)]
    await rebooted(engine, *vms)
    assert await began(engine) == ["vm4", "vm3"]
    assert await engine.hosts.start_left_down() == 0, "two are at work"
    await runs_again(engine, (await starts(engine))[0])
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["vm4", "vm3", "vm2"]


async def test_a_start_that_waits_for_its_turn_is_at_work_and_one_that_waits_for_room_is_not(
    engine: Engine,
) -> None:
    world = engine.world
    await engine.act(EditCluster(cluster_id=world.cluster_id, starts_per_host=1))
    vms = [await world.vm(f"vm{n}", protected=True, priority=n, memory_mib=10) for n in (1, 2)]
    await rebooted(engine, *vms)
    (first,) = await starts(engine)
    await world.put("operation", first["id"], state="waiting", reason_code=STARTS_AT_LIMIT)
    assert await engine.hosts.start_left_down() == 0
    await world.put("operation", first["id"], reason_code="NO_ROOM")
    assert await engine.hosts.start_left_down() == 1


async def test_a_vm_comes_after_one_that_it_depends_on(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db", protected=True, memory_mib=10)
    more = {"priority": 100, "depends_on": (db,)}
    app = await world.vm("app", protected=True, memory_mib=10, **more)
    await rebooted(engine, db, app)
    assert await began(engine) == ["db"]
    assert await engine.hosts.start_left_down() == 0
    await runs_again(engine, (await starts(engine))[0])
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["db", "app"]


async def test_a_vm_does_not_wait_for_ever_for_a_start_that_does_not_end(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db", protected=True, memory_mib=10)
    app = await world.vm("app", protected=True, memory_mib=10, depends_on=(db,))
    await rebooted(engine, db, app)
    world.later(BACK_LIMIT_S + 1)
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["db", "app"]


async def test_what_could_not_begin_for_long_begins_in_order_all_the_same(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db", protected=True, memory_mib=10)
    more = {"priority": 100, "depends_on": (db,)}
    app = await world.vm("app", protected=True, memory_mib=10, **more)
    await engine.act(ArmCluster(cluster_id=world.cluster_id, armed=False))
    await rebooted(engine, db, app)
    world.later(2 * BACK_LIMIT_S)
    assert await engine.hosts.start_left_down() == 0
    await engine.act(ArmCluster(cluster_id=world.cluster_id, armed=True))
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["db"]


async def test_one_that_somebody_has_locked_is_not_waited_for_without_a_limit(
    engine: Engine,
) -> None:
    world = engine.world
    db = await world.vm("db", protected=True, memory_mib=10)
    app = await world.vm("app", protected=True, memory_mib=10, depends_on=(db,))
    await world.lock(db, await world.operation(db, kind="vm.stop", state="running"))
    await rebooted(engine, db, app)
    assert await engine.hosts.start_left_down() == 0
    world.later(BACK_LIMIT_S + 1)
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["app"]


async def test_a_delay_after_what_it_depends_on_is_kept(engine: Engine) -> None:
    world = engine.world
    ready = {"when": "delay", "delay_s": 30.0}
    db = await world.vm("db", protected=True, memory_mib=10, ready=ready)
    app = await world.vm("app", protected=True, memory_mib=10, depends_on=(db,))
    await rebooted(engine, db, app)
    await runs_again(engine, (await starts(engine))[0])
    assert await engine.hosts.start_left_down() == 0
    world.later(31)
    assert await engine.hosts.start_left_down() == 1
    assert await began(engine) == ["db", "app"]


async def test_a_locked_vm_takes_no_turn_from_the_next_one(engine: Engine) -> None:
    world = engine.world
    await engine.act(EditCluster(cluster_id=world.cluster_id, starts_per_host=1))
    vms = [await world.vm(f"vm{n}", protected=True, priority=n, memory_mib=10) for n in (1, 2)]
    holder = await world.operation(vms[1], kind="vm.stop", state="running")
    await world.lock(vms[1], holder)
    await rebooted(engine, *vms)
    await engine.hosts.start_left_down()
    assert await began(engine) == ["vm1"]

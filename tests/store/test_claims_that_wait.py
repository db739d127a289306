"""A recovery gives no place to what waits for VMs of others, unless others need it to have one."""

from uuid import UUID

import pytest

from domain.orders import RestartPlan
from engine.actions.affinity import CreateAffinityGroup
from tests.store.engine_room import Engine
from tests.store.test_recovery_records import Death

pytestmark = pytest.mark.store


async def a_rack_dies(engine: Engine, *, together: bool) -> RestartPlan:
    """`db` runs on a host that is silent; `app`, which needs it, and `cache` on one proven dead."""
    world = engine.world
    h1, h2, _h3 = [await world.host(name) for name in ("h1", "h2", "h3")]
    db = await world.vm("db", protected=True)
    vms: dict[str, UUID] = {}
    for name, needs in (("app", (db,)), ("cache", ())):
        vms[name] = await world.vm(name, protected=True, depends_on=needs, memory_mib=64)
        await world.running(vms[name], h2)
    await world.running(db, h1)
    await world.put("host", h1, state="non_responsive")
    if together:
        group = {"name": "pair", "together": True, "hard": True, "vm_ids": tuple(vms.values())}
        await engine.act(CreateAffinityGroup(cluster_id=world.cluster_id, **group))
    return await (await Death(engine, h2).build()).claim()


@pytest.mark.parametrize(("together", "placed"), [(False, {"cache"}), (True, {"app", "cache"})])
async def test_what_waits_has_no_place_but_where_a_hard_rule_binds_others_to_it(
    engine: Engine, together: bool, placed: set[str]
) -> None:
    plan = await a_rack_dies(engine, together=together)
    assert {one.vm_name for one in plan.restarts if one.run is not None} == placed
    hosts = {one.run.host_name for one in plan.restarts if one.run is not None}
    assert hosts == {"h3"}
    awaited = {one.vm_name: [other.vm_name for other in one.awaits] for one in plan.restarts}
    assert awaited == {"app": ["db"], "cache": []}

"""Hosts get other names and addresses and are removed; what history says of them stays."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.hosts import HostEvent
from domain.inventory import HostState
from domain.matrix import allowed_in
from domain.profiles import Profile
from engine.actions.host_config import AddHost, EditHost, RemoveHost
from engine.actions.hosts import ActivateHost
from engine.actions.operations import CancelOperation
from engine.queries.foreign import ForeignGuests
from engine.queries.incidents import GetIncident
from engine.queries.inventory import GetHost, ListHosts
from engine.records.watching import WatchRecords
from store import edits, hosts, incidents, inventory, observations, runs
from store.ids import new_id
from store.rows import Row, changed
from store.schema import affinity_group, affinity_host
from tests.store.engine_room import Engine, columns
from tests.store.test_inventory_hosts import event_of, summary_of
from tests.store.world import World

pytestmark = pytest.mark.store

OUT = [HostState(state) for state in allowed_in("host", "host.remove")]
IN = [state for state in HostState if state not in OUT]
NEW_URI = "qemu+tls://new/system"


async def group(world: World, name: str, *host_ids: UUID) -> UUID:
    group_id = new_id()
    row: Row = {"id": group_id, "cluster_id": world.cluster_id, "name": name}
    await world.do(inventory.insert, "affinity_group", row | {"created_at": world.now})
    for host_id in host_ids:
        member = affinity_host.insert().values(group_id=group_id, host_id=host_id)
        await world.do(changed, member)
    return group_id


async def void(world: World, host_id: UUID) -> None:
    assert await world.do(incidents.void_certificate, host_id, 1, "it answers", world.now)


async def lost_copy(world: World, host_id: UUID) -> UUID:
    """A VM whose copy on a host is held to be lost, under a valid certificate; its incident."""
    run = await world.running(await world.vm(), host_id)
    certificate_id = await world.certificate(host_id)
    assert await world.do(runs.lose, run["id"], certificate_id, world.now)
    found = await world.do(incidents.find_open, host_id, 1)
    assert found is not None
    assert await world.do(incidents.close, found["id"], "recovered", world.now)
    incident_id: UUID = found["id"]
    return incident_id


def problems_of(error: Any) -> list[str]:
    return [one.code for one in error.problems] or [error.code]


@pytest.mark.parametrize("state", list(HostState))
async def test_a_host_gets_another_name_in_every_state(engine: Engine, state: HostState) -> None:
    host_id = await engine.world.host(state=state)
    await engine.act(EditHost(host_id=host_id, name="h9", own_host=True))
    row = await engine.world.get("host", host_id)
    assert (row["name"], row["own_host"], row["state"]) == ("h9", True, state)


@pytest.mark.parametrize("state", OUT)
async def test_a_host_that_is_out_of_service_gets_another_address(
    engine: Engine, state: HostState
) -> None:
    host_id = await engine.world.host(state=state)
    summary = await summary_of(engine, EditHost(host_id=host_id, uri=NEW_URI))
    assert summary == "changed uri; check that its fence devices are those of that machine"
    assert (await engine.world.get("host", host_id))["uri"] == NEW_URI


@pytest.mark.parametrize("state", IN)
async def test_a_host_in_service_keeps_its_address_and_its_place(
    engine: Engine, state: HostState
) -> None:
    host_id = await engine.world.host(state=state)
    for params in (EditHost(host_id=host_id, uri=NEW_URI), RemoveHost(host_id=host_id)):
        error = await engine.refusal(params)
        assert error.code == "HOST_STATE_FORBIDS"
        assert state in error.detail
        assert "maintenance" in error.detail
    row = await engine.world.get("host", host_id)
    assert not await engine.world.do(edits.move_address, host_id, 1, {"uri": NEW_URI})
    assert not await engine.world.do(edits.remove_host, row, engine.world.now)


async def test_a_host_that_runs_our_vms_keeps_its_address_and_its_place(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host()
    await world.running(await world.vm("db"), host_id)
    await world.placed(await world.vm("web"), host_id)
    await world.put("host", host_id, state="maintenance")
    for params in (EditHost(host_id=host_id, uri=NEW_URI), RemoveHost(host_id=host_id)):
        error = await engine.refusal(params)
        assert (error.code, error.context["count"]) == ("HOST_RUNS_VMS", 2)
        assert "db, web" in error.detail
    row = await world.get("host", host_id)
    assert not await world.do(edits.move_address, host_id, 1, {"uri": NEW_URI})
    assert not await world.do(edits.remove_host, row, world.now)


async def test_a_host_on_which_a_lost_copy_may_run_keeps_its_address_and_its_place(
    engine: Engine,
) -> None:
    world = engine.world
    host_id = await world.host()
    await lost_copy(world, host_id)
    await void(world, host_id)
    for params in (EditHost(host_id=host_id, uri=NEW_URI), RemoveHost(host_id=host_id)):
        error = await engine.refusal(params)
        assert (error.code, error.context["count"]) == ("HOST_MAY_RUN_VMS", 1)
    row = await world.get("host", host_id)
    assert not await world.do(edits.move_address, host_id, 1, {"uri": NEW_URI})
    assert not await world.do(edits.remove_host, row, world.now)


async def test_a_copy_that_was_settled_keeps_nothing(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host()
    await lost_copy(world, host_id)
    await void(world, host_id)
    await world.put("host", host_id, epoch=2)
    await engine.act(EditHost(host_id=host_id, uri=NEW_URI))
    await engine.act(RemoveHost(host_id=host_id))


async def test_a_host_with_an_open_incident_is_not_removed(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host(state="down")
    incident_id = await world.incident(host_id)
    error = await engine.refusal(RemoveHost(host_id=host_id))
    assert error.code == "INCIDENT_OPEN"
    assert error.context["incident_id"] == str(incident_id)
    assert not await world.do(edits.remove_host, await world.get("host", host_id), world.now)


async def test_every_reason_against_a_removal_is_told_at_once(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host("h1")
    await world.running(await world.vm(), host_id)
    await world.incident(host_id)
    await group(world, "near", host_id)
    error = await engine.refusal(RemoveHost(host_id=host_id, expected_version=9))
    assert problems_of(error) == [
        "HOST_STATE_FORBIDS",
        "VERSION_STALE",
        "HOST_RUNS_VMS",
        "INCIDENT_OPEN",
        "AFFINITY_NEEDS_HOST",
    ]


async def test_a_removed_host_takes_its_present_along_and_leaves_its_past(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host("h1")
    other = await world.host("h2")
    incident_id = await lost_copy(world, host_id)
    await world.device(host_id, "bmc1")
    await world.device(other, "bmc2")
    await world.monitor()
    await world.observe(host_id)
    await sample(world, host_id, [])
    receipt = await engine.act(RemoveHost(host_id=host_id))
    assert columns(await engine.rows("fence_device"), "name") == ["bmc2"]
    assert await engine.rows("observation") == []
    assert await engine.rows("host_sample") == []
    assert len(await engine.rows("vm_run")) == 1
    assert len(await engine.rows("death_certificate")) == 1
    story = await engine.backend.run_query(GetIncident(incident_id=incident_id))
    assert story.host_name.startswith("h1~")
    assert story.vms[0].host_before == story.host_name
    event = await event_of(engine, receipt.operation_id)
    assert event["before"]["name"] == "h1"
    assert event["before"]["fence_devices"] == ["bmc1"]


async def test_a_removed_host_is_nowhere_but_in_history(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host("h1", state="down")
    await engine.act(RemoveHost(host_id=host_id))
    page = await engine.backend.run_query(ListHosts())
    assert page.items == ()
    watched = await WatchRecords(world.database, world.clock).watched(Profile.BALANCED)
    assert watched == ()
    for params in (ActivateHost(host_id=host_id), EditHost(host_id=host_id, name="x")):
        assert (await engine.refusal(params)).code == "HOST_NOT_FOUND"
    with pytest.raises(Exception, match="HOST_NOT_FOUND"):
        await engine.backend.run_query(GetHost(host_id=host_id))


async def test_name_and_address_of_a_removed_host_are_free_again_and_again(engine: Engine) -> None:
    world = engine.world
    uri = "qemu+tcp://" + "h" * 480
    for _ in range(3):
        params = AddHost(cluster_id=world.cluster_id, name="h" * 63, uri=uri)
        await engine.act(params)
        found = await world.do(inventory.find, "host", "h" * 63)
        assert found is not None
        (operation,) = [
            row for row in await engine.rows("operation") if row["target_id"] == found["id"]
        ]
        await engine.act(CancelOperation(operation_id=operation["id"]))
        assert (await world.get("host", found["id"]))["state"] == "non_operational"
        await engine.act(RemoveHost(host_id=found["id"]))
    assert len({row["uri"] for row in await engine.rows("host")}) == 3


async def test_a_host_leaves_its_affinity_groups_but_empties_none(engine: Engine) -> None:
    world = engine.world
    first, second = await world.host("h1", state="down"), await world.host("h2")
    await group(world, "both", first, second)
    only = await group(world, "only", first)
    error = await engine.refusal(RemoveHost(host_id=first))
    assert (error.code, error.context["count"]) == ("AFFINITY_NEEDS_HOST", 1)
    assert error.detail.endswith(": only")
    await world.do(changed, affinity_host.delete().where(affinity_host.c.group_id == only))
    await world.do(changed, affinity_group.delete().where(affinity_group.c.id == only))
    summary = await summary_of(engine, RemoveHost(host_id=first))
    assert "taken out of 1 affinity group: both" in summary
    assert columns(await engine.rows("affinity_host"), "host_id") == [second]


async def test_an_address_is_given_once_by_a_change_too(engine: Engine) -> None:
    await engine.world.host("h2", uri=NEW_URI)
    host_id = await engine.world.host("h1", state="down")
    assert (await engine.refusal(EditHost(host_id=host_id, uri=NEW_URI))).code == "URI_TAKEN"


async def test_a_host_that_came_back_meanwhile_is_not_removed(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host(state="down")
    row = await world.get("host", host_id)
    await world.do(hosts.move, host_id, HostEvent.ACTIVATE, "back", world.now)
    assert not await world.do(edits.remove_host, row, world.now)


async def sample(world: World, host_id: UUID, guests: list[Row]) -> None:
    row: Row = {"host_id": host_id, "memory_total_mib": 64, "memory_free_mib": 32, "cpus": 2}
    row |= {"took_s": 0.01, "guests": guests}
    seen: Row = {
        "watched_ms": int,
        "warm": True,
        "observations": [],
        "samples": [row],
        "now": world.now,
    }
    await world.do(observations.record_round, "m1", 1, **seen)


async def test_the_foreign_guests_of_a_host_are_those_of_its_newest_sample_that_are_not_ours(
    engine: Engine,
) -> None:
    world = engine.world
    host_id = await world.host()
    nothing = await engine.backend.run_query(ForeignGuests(host_id=host_id))
    assert (nothing.at, nothing.guests) == (None, ())
    await world.monitor()
    ours, theirs, old = await world.vm("db"), uuid4(), uuid4()

    def guest(guest_id: UUID, name: str) -> Row:
        found: Row = {"vm_id": str(guest_id), "name": name, "state": "running"}
        return found | {"cpu_time_ns": 1, "memory_kib": 65536}

    await sample(world, host_id, [guest(old, "old")])
    world.later(timedelta(seconds=2).total_seconds())
    await sample(world, host_id, [guest(theirs, "theirs"), guest(ours, "db")])
    found = await engine.backend.run_query(ForeignGuests(host_id=host_id))
    assert found.at == world.now
    assert [(g.guest_id, g.name, g.state, g.memory_mib) for g in found.guests] == [
        (theirs, "theirs", "running", 64)
    ]
    with pytest.raises(Exception, match="HOST_NOT_FOUND"):
        await engine.backend.run_query(ForeignGuests(host_id=new_id()))

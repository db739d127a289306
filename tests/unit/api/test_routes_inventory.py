"""Objects are read with their version, and changed and removed by it: ETag and If-Match."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from store import inventory, observations
from store.ids import new_id
from store.rows import Row
from tests.store.world import World
from tests.unit.api.desk import Desk, Json, check_problem

pytestmark = pytest.mark.unit

SEALED = repr([("password", "hunter2")])[::-1].encode()


async def cluster(world: World) -> UUID:
    return world.cluster_id


async def network(world: World) -> UUID:
    row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "name": "lan", "bridge": "br0"}
    await world.do(inventory.insert, "network", row | {"created_at": world.now})
    network_id: UUID = row["id"]
    return network_id


async def host(world: World) -> UUID:
    return await world.host(state="maintenance")


async def fence_device(world: World) -> UUID:
    device_id = await world.device(await world.host())
    await world.put("fence_device", device_id, secrets=SEALED, options={"ip": "192.0.2.1"})
    return device_id


KINDS: dict[str, Callable[[World], Awaitable[UUID]]] = {
    "clusters": cluster,
    "networks": network,
    "hosts": host,
    "fence-devices": fence_device,
}
EACH = pytest.mark.parametrize("path", list(KINDS))


async def done(desk: Desk, method: str, path: str, **given: object) -> Json:
    """The operation of an action that ends at once."""
    answer = await desk.client.request(method, f"/api/v1{path}", **given)  # type: ignore[arg-type]
    assert answer.status_code == 202, answer.text
    view: Json = answer.json()
    assert answer.headers["Location"] == f"/api/v1/operations/{view['id']}"
    assert (view["state"], view["done"]) == ("succeeded", True)
    return view


@EACH
async def test_one_object_comes_with_its_version_as_etag_and_is_changed_by_it(
    desk: Desk, path: str
) -> None:
    one = f"/{path}/{await KINDS[path](desk.world)}"
    answer = await desk.get(one)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"')
    named = {"If-Match": answer.headers["ETag"]}
    view = await done(desk, "PATCH", one, json={"name": "other"}, headers=named)
    assert view["summary"] == "changed name"
    after = await desk.get(one)
    assert after.headers["ETag"] == '"2"'
    assert after.json() == answer.json() | {"name": "other", "version": 2}
    listed = (await desk.get(f"/{path}", params={"name": "other"})).json()["items"]
    assert listed == [after.json()]


@EACH
async def test_an_old_etag_is_a_failed_precondition_and_changes_nothing(
    desk: Desk, path: str
) -> None:
    one = f"/{path}/{await KINDS[path](desk.world)}"
    await done(desk, "PATCH", one, json={"name": "first"}, headers={"If-Match": '"1"'})
    old = {"If-Match": '"1"'}
    late = await desk.client.patch(f"/api/v1{one}", json={"name": "second"}, headers=old)
    problem = check_problem(late, 412, "VERSION_STALE")
    assert problem["context"] == {"version": 2, "expected": 1}
    check_problem(await desk.client.delete(f"/api/v1{one}", headers=old), 412, "VERSION_STALE")
    assert (await desk.get(one)).json()["name"] == "first"


@EACH
async def test_a_removed_object_is_gone(desk: Desk, path: str) -> None:
    one = f"/{path}/{await KINDS[path](desk.world)}"
    view = await done(desk, "DELETE", one, headers={"If-Match": '"1"'})
    assert view["summary"].startswith("removed")
    check_problem(await desk.get(one), 404)
    check_problem(await desk.client.delete(f"/api/v1{one}"), 404)
    assert (await desk.get(f"/{path}")).json()["items"] == []


@EACH
@pytest.mark.parametrize("header", [None, "*", ' "1" '])
async def test_without_a_version_any_will_do(desk: Desk, path: str, header: str | None) -> None:
    one = f"/{path}/{await KINDS[path](desk.world)}"
    headers = {} if header is None else {"If-Match": header}
    view = await done(desk, "PATCH", one, json={}, headers=headers)
    assert view["summary"] == "nothing to change"
    assert (await desk.get(one)).headers["ETag"] == '"1"'


@pytest.mark.parametrize(
    "header", ['W/"1"', "1", '"0"', '"1", "2"', '"9999999999"', '""', "x" * 99]
)
async def test_an_if_match_that_is_no_etag_of_ours_is_refused(desk: Desk, header: str) -> None:
    path = f"/api/v1/clusters/{desk.world.cluster_id}"
    for method in ("PATCH", "DELETE"):
        answer = await desk.client.request(method, path, json={}, headers={"If-Match": header})
        check_problem(answer, 422, "IF_MATCH_INVALID")


async def test_two_if_match_lines_are_refused(desk: Desk) -> None:
    path = f"/api/v1/clusters/{desk.world.cluster_id}"
    for one, other in (('"1"', '"2"'), ("*", '"2"'), ('"2"', "*")):
        lines = [("If-Match", one), ("If-Match", other)]
        answer = await desk.client.patch(path, json={}, headers=lines)
        check_problem(answer, 422, "IF_MATCH_INVALID")


@EACH
@pytest.mark.parametrize("body", [{"name": None}, {"name": "Not A Name"}, {"id": 1}, [], None])
async def test_a_change_that_is_none_is_refused(desk: Desk, path: str, body: object) -> None:
    one = f"/api/v1/{path}/{await KINDS[path](desk.world)}"
    check_problem(await desk.client.patch(one, json=body), 422, "REQUEST_INVALID")


async def test_null_takes_the_bridge_away_and_differs_from_absence_under_one_key(
    desk: Desk,
) -> None:
    one = f"/api/v1/networks/{await network(desk.world)}"
    headers = {"Idempotency-Key": "k-1"}
    named = await desk.client.patch(one, json={"name": "wan"}, headers=headers)
    assert named.status_code == 202
    both = {"name": "wan", "bridge": None}
    again = await desk.client.patch(one, json=both, headers=headers)
    check_problem(again, 422, "IDEMPOTENCY_KEY_REUSED")
    assert (await desk.client.get(one)).json()["bridge"] == "br0"
    await desk.client.patch(one, json=both)
    assert (await desk.client.get(one)).json()["bridge"] is None


async def test_a_network_is_created_and_counts_the_vms_on_it(desk: Desk) -> None:
    body = {"cluster_id": str(desk.world.cluster_id), "name": "lan", "bridge": "br0"}
    view = await done(desk, "POST", "/networks", json=body)
    network_view = (await desk.get(f"/networks/{view['target_id']}")).json()
    assert network_view == body | {"id": view["target_id"], "vms": 0, "version": 1}
    elsewhere = {"cluster_id": str(new_id())}
    assert (await desk.get("/networks", params=elsewhere)).json()["items"] == []


async def test_options_and_secrets_of_a_fence_device_are_merged_and_never_shown(
    desk: Desk,
) -> None:
    one = f"/fence-devices/{await fence_device(desk.world)}"
    body: Json = {"options": {"lanplus": "1"}, "secrets": {"password": "sesame"}}
    view = await done(desk, "PATCH", one, json=body)
    assert view["summary"] == "changed options, secrets"
    answer = await desk.get(one)
    assert answer.json()["options"] == {"ip": "192.0.2.1", "lanplus": "1"}
    events = (await desk.get("/audit", params={"limit": 50})).text
    assert [w for w in ("sesame", "hunter2") if w in answer.text + events + str(view)] == []


async def test_the_foreign_guests_of_a_host_are_listed_with_the_time_of_the_look(
    desk: Desk,
) -> None:
    world = desk.world
    host_id, guest_id = await world.host(), new_id()
    await world.monitor()
    guest: Row = {"vm_id": str(guest_id), "name": "old", "state": "running", "memory_kib": 2048}
    row: Row = {"host_id": host_id, "memory_total_mib": 64, "memory_free_mib": 32, "cpus": 2}
    row |= {"took_s": 0.01, "guests": [guest]}
    seen: Row = {"watched_ms": int, "warm": True, "observations": [], "now": world.now}
    await world.do(observations.record_round, "m1", 1, samples=[row], **seen)
    found = (await desk.get(f"/hosts/{host_id}/foreign-guests")).json()
    assert found["at"] is not None
    assert found["guests"] == [
        {"guest_id": str(guest_id), "name": "old", "state": "running", "memory_mib": 2}
    ]

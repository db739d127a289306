"""VMs and affinity groups over HTTP: read with an ETag, changed and deleted by it, imported."""

from typing import Any
from uuid import UUID

import pytest

from store import inventory
from store.ids import new_id
from store.rows import Row
from tests.unit.api.desk import Desk, Json, check_problem

pytestmark = pytest.mark.unit

MAC = "52:54:00:00:00:01"


async def accepted(desk: Desk, method: str, path: str, body: Any = None, **headers: str) -> Json:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await desk.client.request(method, f"/api/v1{path}", json=body, headers=sent)
    assert answer.status_code == 202, answer.text
    found: Json = answer.json()
    return found


async def network(desk: Desk) -> UUID:
    row: Row = {"id": new_id(), "cluster_id": desk.world.cluster_id, "name": "lan"}
    row |= {"bridge": "br0", "created_at": desk.world.now}
    await desk.world.do(inventory.insert, "network", row)
    network_id: UUID = row["id"]
    return network_id


async def create(desk: Desk, name: str = "web", **more: Any) -> str:
    body = {"cluster_id": str(desk.world.cluster_id), "name": name, "memory_mib": 64}
    made = await accepted(desk, "POST", "/vms", body | more)
    assert made["state"] == "succeeded"
    return str(made["target_id"])


async def test_a_vm_is_read_with_all_it_is_made_of_and_its_version(desk: Desk) -> None:
    lan = str(await network(desk))
    vm = await create(
        desk,
        nics=[{"network_id": lan, "mac": MAC.upper(), "model": "e1000"}],
        disks=[{"path": "/d/a.img", "bus": "scsi"}],
        budget_s=60,
    )
    answer = await desk.get(f"/vms/{vm}")
    found = answer.json()
    assert answer.headers["ETag"] == '"1"'
    assert found["nics"] == [
        {"network_id": lan, "network": "lan", "bridge": "br0", "mac": MAC, "model": "e1000"}
    ]
    assert (found["budget_s"], found["machine"], found["boot"]) == (60, "pc", None)
    assert found["disks"][0]["bus"] == "scsi"


async def test_a_change_leaves_what_it_does_not_name_and_null_takes_away(desk: Desk) -> None:
    vm = await create(desk, budget_s=60, protected=True)
    await accepted(desk, "PATCH", f"/vms/{vm}", {"budget_s": None, "vcpus": 2}, If_Match='"1"')
    answer = await desk.get(f"/vms/{vm}")
    found = answer.json()
    assert (found["budget_s"], found["vcpus"], found["protected"]) == (None, 2, True)
    assert answer.headers["ETag"] == '"2"'


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_vm_that_somebody_else_has_changed_is_left_alone(desk: Desk, method: str) -> None:
    vm = await create(desk)
    await accepted(desk, "PATCH", f"/vms/{vm}", {"vcpus": 2})
    headers = {"If-Match": '"1"'}
    body = {"vcpus": 4} if method == "PATCH" else None
    answer = await desk.client.request(method, f"/api/v1/vms/{vm}", json=body, headers=headers)
    check_problem(answer, 412, "VERSION_STALE")
    assert (await desk.get(f"/vms/{vm}")).json()["vcpus"] == 2


async def test_a_deleted_vm_is_not_found_and_not_listed(desk: Desk) -> None:
    vm = await create(desk)
    await accepted(desk, "DELETE", f"/vms/{vm}", If_Match='"1"')
    check_problem(await desk.get(f"/vms/{vm}"), 404, "VM_NOT_FOUND")
    assert (await desk.get("/vms")).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": None},
        {"vcpus": 0},
        {"nics": [{"network_id": "?"}]},
        {"nics": [{"mac": MAC}]},
        {"expected_version": 1},
        {"vm_id": str(UUID(int=1))},
        {"surprise": 1},
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_by_its_fields(
    desk: Desk, body: Json
) -> None:
    vm = await create(desk)
    answer = await desk.client.patch(f"/api/v1/vms/{vm}", json=body)
    check_problem(answer, 422, "REQUEST_INVALID")


async def test_a_taken_address_is_a_conflict_that_names_its_vm(desk: Desk) -> None:
    cards = [{"network_id": str(await network(desk)), "mac": MAC}]
    await create(desk, nics=cards)
    body = {"cluster_id": str(desk.world.cluster_id), "name": "app", "memory_mib": 64}
    answer = await desk.post("/vms", body | {"nics": cards})
    assert check_problem(answer, 409, "MAC_TAKEN")["context"]["vm"] == "web"


async def test_an_import_is_an_operation_on_the_vm_that_the_guest_becomes(desk: Desk) -> None:
    host, guest = await desk.world.host(), str(new_id())
    body = {"host_id": str(host), "guest_id": guest, "name": "old"}
    asked = await accepted(desk, "POST", "/vms/import", body)
    assert (asked["kind"], asked["target_id"], asked["state"]) == ("vm.import", guest, "pending")
    assert await desk.world.do(inventory.get, "vm", UUID(guest)) is None


async def test_a_dry_run_of_an_import_shows_its_locks_and_writes_nothing(desk: Desk) -> None:
    host, guest = await desk.world.host(), str(new_id())
    body = {"host_id": str(host), "guest_id": guest, "name": "old"}
    answer = await desk.client.post("/api/v1/vms/import?dry_run=true", json=body)
    seen = answer.json()
    locks = [(lock["entity_type"], lock["mode"]) for lock in seen["locks"]]
    assert (seen["allowed"], locks) == (True, [("host", "shared"), ("vm", "exclusive")])
    assert (await desk.get("/operations")).json()["items"] == []


async def test_an_affinity_group_is_read_changed_and_deleted_by_its_version(desk: Desk) -> None:
    vm = await create(desk)
    body = {"cluster_id": str(desk.world.cluster_id), "name": "near", "together": True}
    made = await accepted(desk, "POST", "/affinity-groups", body | {"vm_ids": [vm]})
    path = f"/affinity-groups/{made['target_id']}"
    assert (await desk.get(path)).headers["ETag"] == '"1"'
    (item,) = (await desk.get("/affinity-groups", params={"name": "near"})).json()["items"]
    assert (item["vm_ids"], item["host_ids"], item["hard"]) == ([vm], [], False)
    assert (await desk.get(f"/vms/{vm}")).json()["affinity_groups"][0]["name"] == "near"
    await accepted(desk, "PATCH", path, {"vm_ids": []}, If_Match='"1"')
    check_problem(
        await desk.client.delete(f"/api/v1{path}", headers={"If-Match": '"1"'}),
        *(412, "VERSION_STALE"),
    )
    await accepted(desk, "DELETE", path, If_Match='"2"')
    check_problem(await desk.get(path), 404, "AFFINITY_GROUP_NOT_FOUND")


async def test_affinity_groups_are_listed_by_pages(desk: Desk) -> None:
    for number in range(3):
        body = {"cluster_id": str(desk.world.cluster_id), "name": f"g{number}", "together": True}
        await accepted(desk, "POST", "/affinity-groups", body)
    first = (await desk.get("/affinity-groups", params={"limit": 2, "count": True})).json()
    rest = (await desk.get("/affinity-groups", params={"cursor": first["next_cursor"]})).json()
    names = [item["name"] for item in (*first["items"], *rest["items"])]
    assert (names, first["total"], rest["next_cursor"]) == (["g0", "g1", "g2"], 3, None)

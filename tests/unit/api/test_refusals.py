"""Everything that is refused: which status, which code, what to do next; and nothing is written."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from api.problems import BODY_BYTES_MAX
from store.database import Database
from store.ids import new_id
from tests.unit.api.desk import Desk, Json, check_problem, open_desk

pytestmark = pytest.mark.unit

NOBODY = UUID(int=7)
"""An id of nothing; fixed, so that every test process collects the same tests."""

JSON = {"Content-Type": "application/json"}

UNKNOWN = [
    ("GET", "/hosts/{}", "HOST_NOT_FOUND"),
    ("GET", "/hosts/{}/samples", "HOST_NOT_FOUND"),
    ("GET", "/hosts/{}/monitors", "HOST_NOT_FOUND"),
    ("GET", "/hosts/{}/ssh", "HOST_NOT_FOUND"),
    ("GET", "/vms/{}", "VM_NOT_FOUND"),
    ("GET", "/operations/{}", "OPERATION_NOT_FOUND"),
    ("GET", "/operations/{}/explanation", "OPERATION_NOT_FOUND"),
    ("GET", "/incidents/{}", "INCIDENT_NOT_FOUND"),
    ("GET", "/incidents/{}/explanation", "INCIDENT_NOT_FOUND"),
    ("GET", "/hosts/{}/forecast", "HOST_NOT_FOUND"),
    ("GET", "/clusters/{}", "CLUSTER_NOT_FOUND"),
    ("PATCH", "/clusters/{}", "CLUSTER_NOT_FOUND"),
    ("DELETE", "/clusters/{}", "CLUSTER_NOT_FOUND"),
    ("GET", "/networks/{}", "NETWORK_NOT_FOUND"),
    ("PATCH", "/networks/{}", "NETWORK_NOT_FOUND"),
    ("DELETE", "/networks/{}", "NETWORK_NOT_FOUND"),
    ("PATCH", "/hosts/{}", "HOST_NOT_FOUND"),
    ("DELETE", "/hosts/{}", "HOST_NOT_FOUND"),
    ("GET", "/hosts/{}/foreign-guests", "HOST_NOT_FOUND"),
    ("GET", "/fence-devices/{}", "FENCE_DEVICE_NOT_FOUND"),
    ("PATCH", "/fence-devices/{}", "FENCE_DEVICE_NOT_FOUND"),
    ("DELETE", "/fence-devices/{}", "FENCE_DEVICE_NOT_FOUND"),
    ("POST", "/clusters/{}/actions/arm", "CLUSTER_NOT_FOUND"),
    ("POST", "/clusters/{}/actions/disarm", "CLUSTER_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/activate", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/test-fencing", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/rehearse-fencing", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/restart-libvirtd", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/confirm-dead", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/approve-fence", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/withdraw-approval", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/maintain", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/shutdown", "HOST_NOT_FOUND"),
    ("POST", "/hosts/{}/actions/reboot", "HOST_NOT_FOUND"),
    ("PATCH", "/vms/{}", "VM_NOT_FOUND"),
    ("DELETE", "/vms/{}", "VM_NOT_FOUND"),
    ("GET", "/affinity-groups/{}", "AFFINITY_GROUP_NOT_FOUND"),
    ("PATCH", "/affinity-groups/{}", "AFFINITY_GROUP_NOT_FOUND"),
    ("DELETE", "/affinity-groups/{}", "AFFINITY_GROUP_NOT_FOUND"),
    ("POST", "/vms/{}/actions/start", "VM_NOT_FOUND"),
    ("POST", "/vms/{}/actions/stop", "VM_NOT_FOUND"),
    ("POST", "/vms/{}/actions/migrate", "VM_NOT_FOUND"),
    ("POST", "/vms/{}/actions/end-copy", "VM_NOT_FOUND"),
    ("POST", "/vms/{}/actions/adopt-copy", "VM_NOT_FOUND"),
    ("POST", "/operations/{}/actions/cancel", "OPERATION_NOT_FOUND"),
    ("POST", "/operations/{}/actions/retry", "OPERATION_NOT_FOUND"),
    ("POST", "/operations/{}/actions/pause", "OPERATION_NOT_FOUND"),
    ("POST", "/operations/{}/actions/resume", "OPERATION_NOT_FOUND"),
    ("POST", "/operations/{}/actions/prioritise", "OPERATION_NOT_FOUND"),
]


BODIES: dict[str, Json] = {
    "confirm-dead": {"reason": "I saw it"},
    "approve-fence": {"reason": "the rack burns"},
    "prioritise": {"priority": 4},
    "end-copy": {"host_id": str(NOBODY)},
    "adopt-copy": {"host_id": str(NOBODY)},
}
"""What an address needs to be told before it looks for its object."""


async def operations(desk: Desk) -> list[Json]:
    found: list[Json] = (await desk.get("/operations")).json()["items"]
    return found


@pytest.mark.parametrize("body", [b"{", b'{"name": }', b"", b"nonsense", b'{"name": "c2"'])
async def test_a_body_that_is_not_json_is_malformed(desk: Desk, body: bytes) -> None:
    answer = await desk.client.post("/api/v1/clusters", content=body, headers=JSON)
    if body:
        check_problem(answer, 400, "JSON_INVALID")
    else:
        check_problem(answer, 422, "REQUEST_INVALID")


async def test_a_body_that_is_not_text_is_unreadable(desk: Desk) -> None:
    answer = await desk.client.post("/api/v1/clusters", content=b'{"\xff": 1}', headers=JSON)
    check_problem(answer, 400, "BODY_UNREADABLE")


@pytest.mark.parametrize(("method", "path", "code"), UNKNOWN)
async def test_an_unknown_id_is_not_found_under_a_code_of_its_kind(
    desk: Desk, method: str, path: str, code: str
) -> None:
    unknown = str(new_id())
    body = BODIES.get(path.rpartition("/")[2], {} if method == "PATCH" else None)
    answer = await desk.client.request(method, f"/api/v1{path.format(unknown)}", json=body)
    document = check_problem(answer, 404, code)
    assert document["context"] == {"id": unknown}
    assert document["next_step"]
    assert await operations(desk) == []


@pytest.mark.parametrize("path", ["/clusters/", "/clusters/%2F", "/hosts//", "/networks/?name=x"])
async def test_an_address_with_a_slash_too_many_is_not_found(desk: Desk, path: str) -> None:
    check_problem(await desk.get(path), 404, "PATH_NOT_FOUND")


async def test_every_path_that_names_an_object_was_asked_for_an_unknown_one(desk: Desk) -> None:
    asked = {(method, path.replace("{}", "")) for method, path, _code in UNKNOWN}
    served = {
        (method, re.sub(r"\{\w+\}", "", path.removeprefix("/api/v1")))
        for method, path in desk.operations()
        if "{" in path
    }
    assert asked == served


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/hosts", {"cluster_id": "?", "name": "h1", "uri": "test:///x"}, "CLUSTER_NOT_FOUND"),
        ("/vms", {"cluster_id": "?", "name": "web", "memory_mib": 64}, "CLUSTER_NOT_FOUND"),
        ("/fence-devices", {"host_id": "?", "name": "b", "agent": "fence_x"}, "HOST_NOT_FOUND"),
    ],
)
async def test_a_body_that_names_an_unknown_object_is_not_found(
    desk: Desk, path: str, body: Json, code: str
) -> None:
    sent = {key: str(new_id()) if value == "?" else value for key, value in body.items()}
    check_problem(await desk.post(path, sent), 404, code)
    assert await operations(desk) == []


class Scene:
    """One host with one running and one stopped VM."""

    def __init__(self, desk: Desk, host: UUID, running: UUID, stopped: UUID) -> None:
        self.desk, self.host, self.running, self.stopped = desk, host, running, stopped

    async def refused(self, path: str, code: str, status: int = 409, body: Any = None) -> Json:
        """The refusal of an action, after which no operation is there."""
        before = await operations(self.desk)
        document = check_problem(await self.desk.post(path, body), status, code)
        assert document["next_step"]
        assert await operations(self.desk) == before
        return document


@pytest.fixture
async def scene(desk: Desk) -> Scene:
    host_id = await desk.world.host()
    running, stopped = await desk.world.vm("db"), await desk.world.vm("web")
    await desk.world.running(running, host_id)
    return Scene(desk, host_id, running, stopped)


async def test_a_running_vm_cannot_be_started(scene: Scene) -> None:
    document = await scene.refused(f"/vms/{scene.running}/actions/start", "VM_NOT_DOWN")
    assert document["context"] == {"vm": "db", "host": "h1", "state": "running"}


async def test_a_stopped_vm_cannot_be_stopped(scene: Scene) -> None:
    await scene.refused(f"/vms/{scene.stopped}/actions/stop", "VM_NOT_RUNNING")


async def test_a_stopped_vm_cannot_be_moved(scene: Scene) -> None:
    await scene.refused(f"/vms/{scene.stopped}/actions/migrate", "VM_NOT_RUNNING")


async def test_a_vm_is_not_moved_to_where_it_runs(scene: Scene) -> None:
    path = f"/vms/{scene.running}/actions/migrate"
    answer = await scene.desk.post(path, {"host_id": str(scene.host)})
    check_problem(answer, 409, "VM_THERE_ALREADY")


@pytest.mark.parametrize("word", ["start", "stop"])
async def test_a_vm_on_a_silent_host_is_neither_started_nor_stopped(
    scene: Scene, word: str
) -> None:
    await scene.desk.world.put("host", scene.host, state="non_responsive")
    await scene.refused(f"/vms/{scene.running}/actions/{word}", "HOST_NOT_PROVEN_DEAD")


async def test_a_host_in_service_cannot_be_activated(scene: Scene) -> None:
    await scene.refused(f"/hosts/{scene.host}/actions/activate", "HOST_STATE_FORBIDS")


async def test_a_vm_larger_than_any_host_is_refused_with_both_figures(scene: Scene) -> None:
    world = scene.desk.world
    big = await world.vm("big", memory_mib=4096)
    document = await scene.refused(f"/vms/{big}/actions/start", "VM_TOO_BIG", 422)
    assert (document["context"]["needs_mib"], document["context"]["largest_mib"]) == (4096, 1024)


async def test_a_vm_is_not_started_on_a_host_that_its_cluster_has_not(scene: Scene) -> None:
    body = {"host_id": str(new_id())}
    await scene.refused(f"/vms/{scene.stopped}/actions/start", "HOST_NOT_FOUND", 404, body)


async def test_two_operations_do_not_work_on_one_vm(scene: Scene) -> None:
    path = f"/vms/{scene.stopped}/actions/start"
    first = (await scene.desk.post(path)).json()
    document = await scene.refused(path, "OBJECT_BUSY")
    assert document["context"]["holder_operation_id"] == first["id"]


async def test_a_name_is_given_once_for_each_kind_of_object(scene: Scene) -> None:
    cluster = str(scene.desk.world.cluster_id)
    await scene.refused("/clusters", "NAME_TAKEN", body={"name": "c1"})
    vm = {"cluster_id": cluster, "name": "db", "memory_mib": 64}
    await scene.refused("/vms", "NAME_TAKEN", body=vm)
    host = {"cluster_id": cluster, "name": "h1", "uri": "qemu+tcp://other/system"}
    await scene.refused("/hosts", "NAME_TAKEN", body=host)


async def test_a_host_is_added_once_whatever_it_is_called(desk: Desk) -> None:
    await desk.world.host()
    body = {"cluster_id": str(desk.world.cluster_id), "name": "h2", "uri": "qemu+tcp://h1/system"}
    check_problem(await desk.post("/hosts", body), 409, "URI_TAKEN")


async def test_a_fence_agent_that_is_not_installed_is_refused(scene: Scene) -> None:
    body = {"host_id": str(scene.host), "name": "bmc1", "agent": "fence_abacus"}
    answer = await scene.desk.post("/fence-devices", body)
    check_problem(answer, 422, "FENCE_AGENT_UNKNOWN")


async def test_every_wrong_field_is_named_at_once_by_a_json_pointer(desk: Desk) -> None:
    body = {"cluster_id": "x", "name": "Not A Name", "memory_mib": 1, "vcpus": "many"}
    body |= {"disks": [{"path": "/a"}, {"path": "relative"}]}
    document = check_problem(await desk.post("/vms", body), 422, "REQUEST_INVALID")
    pointers = [item["pointer"] for item in document["errors"]]
    assert pointers == ["/cluster_id", "/name", "/memory_mib", "/vcpus", "/disks/1/path"]
    assert all(item["detail"] for item in document["errors"])
    assert document["detail"].startswith("5 fields are wrong")


async def test_one_wrong_field_is_told_as_one(desk: Desk) -> None:
    body = {"cluster_id": str(desk.world.cluster_id), "name": "Not A Name", "memory_mib": 64}
    document = check_problem(await desk.post("/vms", body), 422, "REQUEST_INVALID")
    assert document["detail"].startswith("1 field is wrong: /name: ")


async def test_missing_fields_are_named(desk: Desk) -> None:
    document = check_problem(await desk.post("/vms", {}), 422, "REQUEST_INVALID")
    pointers = [item["pointer"] for item in document["errors"]]
    assert pointers == ["/cluster_id", "/name", "/memory_mib"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/clusters", {"name": "c2"}),
        ("/hosts", {"name": "h2", "cluster_id": str(NOBODY), "uri": "test:///x"}),
        ("/vms", {"name": "web", "cluster_id": str(NOBODY), "memory_mib": 64}),
        ("/fence-devices", {"name": "b", "host_id": str(NOBODY), "agent": "fence_x"}),
        (f"/clusters/{NOBODY}/actions/arm", {}),
        (f"/clusters/{NOBODY}/actions/disarm", {}),
        (f"/hosts/{NOBODY}/actions/activate", {}),
        (f"/hosts/{NOBODY}/actions/maintain", {}),
        (f"/hosts/{NOBODY}/actions/shutdown", {"vms": "migrate"}),
        (f"/hosts/{NOBODY}/actions/reboot", {"vms": "freeze"}),
        (f"/hosts/{NOBODY}/actions/confirm-dead", {"reason": "I saw it"}),
        (f"/hosts/{NOBODY}/actions/approve-fence", {"reason": "the rack burns"}),
        (f"/hosts/{NOBODY}/actions/withdraw-approval", {}),
        (f"/vms/{NOBODY}/actions/start", {}),
        (f"/vms/{NOBODY}/actions/stop", {}),
        (f"/vms/{NOBODY}/actions/migrate", {}),
        (f"/vms/{NOBODY}/actions/end-copy", {"host_id": str(NOBODY)}),
        (f"/vms/{NOBODY}/actions/adopt-copy", {"host_id": str(NOBODY)}),
    ],
)
async def test_a_field_that_nobody_knows_is_refused(desk: Desk, path: str, body: Json) -> None:
    answer = await desk.post(path, body | {"mispelt": 1})
    document = check_problem(answer, 422, "REQUEST_INVALID")
    assert [item["pointer"] for item in document["errors"]] == ["/mispelt"]


async def test_the_limits_of_a_query_are_named(desk: Desk) -> None:
    for path, name, value in (
        ("/operations", "limit", 0),
        ("/operations", "state", "sleeping"),
        ("/events", "after", 2**63),
        ("/vms", "name", "a\0b"),
    ):
        answer = await desk.get(path, params={name: value})
        document = check_problem(answer, 422, "REQUEST_INVALID")
        assert [item["pointer"] for item in document["errors"]] == [f"/{name}"]


async def test_a_path_or_method_that_is_not_served_is_a_problem_too(desk: Desk) -> None:
    check_problem(await desk.get("/nowhere"), 404, "PATH_NOT_FOUND")
    check_problem(await desk.client.delete("/api/v1/vms"), 405, "METHOD_NOT_ALLOWED")


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(desk: Desk) -> None:
    body = b"[" + b" " * BODY_BYTES_MAX + b"]"
    answer = await desk.client.post("/api/v1/clusters", content=body, headers=JSON)
    check_problem(answer, 413, "BODY_TOO_LARGE")


async def test_a_body_of_unknown_length_is_counted_while_it_is_read(desk: Desk) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 4096 + 1):
            yield b" " * 4096

    answer = await desk.client.post("/api/v1/clusters", content=pieces(), headers=JSON)
    check_problem(answer, 413, "BODY_TOO_LARGE")


async def test_a_database_that_is_away_is_said_so_and_when_to_come_back() -> None:
    away = Database("sqlite+aiosqlite:////nonexistent/holdfast.db")
    async with open_desk(away) as desk:
        for path in ("/readyz", "/api/v1/vms", f"/api/v1/operations/{new_id()}"):
            answer = await desk.client.get(path)
            document = check_problem(answer, 503, "DATABASE_UNAVAILABLE")
            assert document["retryable"] is True
            assert int(answer.headers["Retry-After"]) > 0
        answer = await desk.post("/clusters", {"name": "c2"})
        check_problem(answer, 503, "DATABASE_UNAVAILABLE")
        assert (await desk.client.get("/livez")).status_code == 200
    await away.close()
    assert desk.deliverer.delivered == []


async def test_a_defect_is_a_problem_that_can_be_traced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(_params: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(desk.backend, "run_query", defect)
    document = check_problem(await desk.get("/vms"), 500, "INTERNAL")
    assert "secret" not in str(document)

"""Every route's ordinary answer, over the real backend and database."""

from typing import Any
from uuid import UUID

import pytest

from store import incidents, observations, plumbing
from store.ids import new_id
from tests.unit.api.desk import Desk, Json

pytestmark = pytest.mark.unit


async def accepted(desk: Desk, path: str, body: Json | None = None) -> Json:
    answer = await desk.post(path, body)
    assert answer.status_code == 202, answer.text
    view: Json = answer.json()
    assert answer.headers["Location"] == f"/api/v1/operations/{view['id']}"
    again = await desk.client.get(answer.headers["Location"])
    assert again.json() == view
    return view


async def test_a_cluster_is_created_at_once_and_says_what_its_profile_predicts(desk: Desk) -> None:
    view = await accepted(desk, "/clusters", {"name": "c2", "profile": "fast"})
    assert (view["kind"], view["state"], view["done"]) == ("cluster.create", "succeeded", True)
    (cluster,) = (await desk.get("/clusters", params={"name": "c2"})).json()["items"]
    assert (cluster["id"], cluster["profile"]) == (view["target_id"], "fast")
    assert 0 < cluster["predicted_power_cut_s"] < cluster["predicted_isolation_s"]
    names = [item["name"] for item in (await desk.get("/clusters")).json()["items"]]
    assert names == ["c1", "c2"]


async def test_a_cluster_is_disarmed_and_armed_by_one_request_each(desk: Desk) -> None:
    path = f"/clusters/{desk.world.cluster_id}/actions"
    for word, armed, told in (("disarm", False, "disarmed: hold"), ("arm", True, "armed")):
        assert (await accepted(desk, f"{path}/{word}"))["summary"] == told
        (cluster,) = (await desk.get("/clusters")).json()["items"]
        assert cluster["armed"] is armed


@pytest.mark.parametrize("mode", ["hold", "freeze", "ignore"])
async def test_a_cluster_is_disarmed_in_a_mode_and_says_who_did_it(desk: Desk, mode: str) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    await accepted(desk, f"{path}/actions/disarm", {"mode": mode})
    cluster = (await desk.get(path)).json()
    assert (cluster["disarm_mode"], cluster["disarmed_by"]) == (mode, "admin")


async def test_a_cluster_tells_how_many_vms_a_recovery_starts_at_once_on_a_host(desk: Desk) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    assert (await desk.get(path)).json()["starts_per_host"] == 8
    for wanted, status in ((1, 202), (1000, 202), (0, 422), (1001, 422), (None, 422)):
        body = {"starts_per_host": wanted}
        response = await desk.client.patch(f"/api/v1{path}", json=body)
        assert response.status_code == status, response.text
    assert (await desk.get(path)).json()["starts_per_host"] == 1000


GARBAGE: list[Any] = [0, -1, 0.05, 101, 1e300, "four", True, [], "NaN"]


async def test_a_cluster_tells_how_many_vcpus_its_hosts_may_promise(desk: Desk) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    host = f"/hosts/{await desk.world.host(cpus=4, vcpus_reserved=3)}"
    assert (await desk.get(path)).json()["vcpu_overcommit"] is None
    assert (await desk.get(host)).json()["vcpus_allowed"] is None
    for wanted in (0.1, 100, 1.5):
        response = await desk.client.patch(f"/api/v1{path}", json={"vcpu_overcommit": wanted})
        assert response.status_code == 202, response.text
    assert (await desk.get(path)).json()["vcpu_overcommit"] == 1.5
    shown = (await desk.get(host)).json()
    assert (shown["vcpus_reserved"], shown["vcpus_allowed"]) == (3, 6)
    response = await desk.client.patch(f"/api/v1{path}", json={"vcpu_overcommit": None})
    assert response.status_code == 202, response.text
    assert (await desk.get(path)).json()["vcpu_overcommit"] is None


@pytest.mark.parametrize("wanted", GARBAGE, ids=repr)
async def test_a_senseless_overcommit_is_refused_and_changes_nothing(
    desk: Desk, wanted: Any
) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    before = (await desk.get(path)).json()
    response = await desk.client.patch(f"/api/v1{path}", json={"vcpu_overcommit": wanted})
    assert response.status_code == 422, response.text
    assert "/vcpu_overcommit" in response.text
    assert (await desk.get(path)).json() == before


async def test_a_cluster_tells_how_much_memory_its_hosts_may_promise(desk: Desk) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    host = f"/hosts/{await desk.world.host(memory_mib=1001)}"
    assert (await desk.get(path)).json()["memory_overcommit"] == 1.0
    assert (await desk.get(host)).json()["memory_allowed_mib"] == 1001
    for wanted in (1, 10, 1.5):
        response = await desk.client.patch(f"/api/v1{path}", json={"memory_overcommit": wanted})
        assert response.status_code == 202, response.text
    assert (await desk.get(path)).json()["memory_overcommit"] == 1.5
    shown = (await desk.get(host)).json()
    assert (shown["memory_mib"], shown["memory_allowed_mib"]) == (1001, 1501)


@pytest.mark.parametrize("wanted", [0.99, 10.1, None, "two", True, "NaN"], ids=repr)
async def test_a_senseless_memory_overcommit_is_refused_and_changes_nothing(
    desk: Desk, wanted: Any
) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    before = (await desk.get(path)).json()
    response = await desk.client.patch(f"/api/v1{path}", json={"memory_overcommit": wanted})
    assert response.status_code == 422, response.text
    assert "memory_overcommit" in response.text
    assert (await desk.get(path)).json() == before


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
async def test_an_overcommit_that_is_no_number_is_refused(desk: Desk, word: str) -> None:
    path = f"/clusters/{desk.world.cluster_id}"
    body = f'{{"vcpu_overcommit": {word}}}'
    headers = {"Content-Type": "application/json"}
    response = await desk.client.patch(f"/api/v1{path}", content=body, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert (await desk.get(path)).json()["vcpu_overcommit"] is None


async def test_hosts_tell_their_rack_and_a_cluster_its_budgets(desk: Desk) -> None:
    cluster = f"/clusters/{desk.world.cluster_id}"
    limits = {"fences_max": 3, "rack_fences_percent": 50, "site_fences_max": None}
    response = await desk.client.patch(f"/api/v1{cluster}", json=limits)
    assert response.status_code == 202, response.text
    assert limits.items() <= (await desk.get(cluster)).json().items()
    body = {"cluster_id": str(desk.world.cluster_id), "name": "h1", "uri": "qemu+tcp://h1/system"}
    added = await accepted(desk, "/hosts", body | {"rack": "r1", "site": "North"})
    host = f"/hosts/{added['target_id']}"
    assert [(await desk.get(host)).json()[word] for word in ("rack", "site")] == ["r1", "North"]


async def test_a_host_is_added_out_of_service_and_its_activation_is_started(desk: Desk) -> None:
    body = {"cluster_id": str(desk.world.cluster_id), "name": "h1", "uri": "qemu+tcp://h1/system"}
    view = await accepted(desk, "/hosts", body)
    assert (view["kind"], view["state"]) == ("host.add", "pending")
    assert view["workflow_id"] == f"op/{view['id']}/1"
    await desk.backend.close()
    assert desk.deliverer.delivered == [UUID(view["id"])]
    host = (await desk.get(f"/hosts/{view['target_id']}")).json()
    assert (host["name"], host["state"], host["epoch"]) == ("h1", "reconciling", 0)
    assert (await desk.get("/hosts", params={"name": "h1"})).json()["items"] == [host]
    assert (await desk.get("/hosts", params={"name": "other"})).json()["items"] == []


async def test_a_host_that_is_down_is_activated(desk: Desk) -> None:
    host_id = await desk.world.host(state="down")
    view = await accepted(desk, f"/hosts/{host_id}/actions/activate", {})
    assert (view["kind"], view["target_name"]) == ("host.activate", "h1")
    assert (await desk.get(f"/hosts/{host_id}")).json()["state"] == "reconciling"


async def test_a_hosts_samples_come_newest_first_and_within_the_limit(desk: Desk) -> None:
    host_id = await desk.world.host()
    now = desk.backend._clock()
    row = {"host_id": host_id, "memory_total_mib": 64, "memory_free_mib": 32, "cpus": 2}
    row |= {"took_s": 0.01, "guests": [{"name": "db"}]}
    await desk.world.monitor()
    seen = {"watched_ms": int, "warm": True, "observations": [], "now": now}
    await desk.world.do(observations.record_round, "m1", 1, samples=[row], **seen)
    (sample,) = (await desk.get(f"/hosts/{host_id}/samples", params={"limit": 5})).json()
    assert (sample["memory_free_mib"], sample["guests"]) == (32, [{"name": "db"}])


async def test_a_host_tells_who_watches_it_and_what_each_said_last(desk: Desk) -> None:
    host_id = await desk.world.host()
    await desk.world.monitor()
    assert (await desk.get(f"/hosts/{host_id}/monitors")).json()[0]["state"] == "joining"
    await desk.world.observe(host_id, verdict="up")
    (eye,) = (await desk.get(f"/hosts/{host_id}/monitors")).json()
    assert (eye["monitor"], eye["state"], eye["verdict"]) == ("m1", "watching", "up")


async def test_a_fence_device_is_added_and_listed_by_host(desk: Desk) -> None:
    host_id = await desk.world.host()
    body: Json = {"host_id": str(host_id), "name": "bmc1", "agent": "fence_ipmilan"}
    body |= {"options": {"ip": "192.0.2.1"}, "secrets": {"password": "sesame"}}
    view = await accepted(desk, "/fence-devices", body)
    assert view["summary"] == "added"
    (device,) = (await desk.get("/fence-devices", params={"host_id": str(host_id)})).json()["items"]
    assert (device["host_name"], device["options"]) == ("h1", {"ip": "192.0.2.1"})
    other = {"host_id": str(new_id())}
    assert (await desk.get("/fence-devices", params=other)).json()["items"] == []


async def test_a_vm_is_created_down_and_knows_what_it_depends_on(desk: Desk) -> None:
    db_id = await desk.world.vm("db")
    body = {"cluster_id": str(desk.world.cluster_id), "name": "web", "memory_mib": 64}
    body |= {"protected": True, "priority": 90, "depends_on": [str(db_id)]}
    view = await accepted(desk, "/vms", body)
    vm = (await desk.get(f"/vms/{view['target_id']}")).json()
    assert (vm["state"], vm["protected"], vm["priority"]) == ("down", True, 90)
    assert vm["depends_on"] == [str(db_id)]
    (listed,) = (await desk.get("/vms", params={"name": "web"})).json()["items"]
    assert listed.items() <= vm.items()


async def test_a_vm_that_is_down_is_started(desk: Desk) -> None:
    host_id, vm_id = await desk.world.host(), await desk.world.vm()
    view = await accepted(desk, f"/vms/{vm_id}/actions/start", {"host_id": str(host_id)})
    assert (view["kind"], view["state"], view["target_name"]) == ("vm.start", "pending", "db")


async def test_a_vm_that_runs_is_stopped_and_shown_with_its_host(desk: Desk) -> None:
    host_id, vm_id = await desk.world.host(), await desk.world.vm()
    await desk.world.running(vm_id, host_id)
    vm = (await desk.get(f"/vms/{vm_id}")).json()
    assert (vm["state"], vm["host_name"], vm["generation"]) == ("up", "h1", 1)
    assert (await desk.get(f"/hosts/{host_id}")).json()["vms"] == 1
    view = await accepted(desk, f"/vms/{vm_id}/actions/stop", {"force": True})
    assert view["kind"] == "vm.stop"


async def test_a_vm_whose_host_is_silent_is_shown_as_unknown(desk: Desk) -> None:
    host_id, vm_id = await desk.world.host(), await desk.world.vm()
    await desk.world.running(vm_id, host_id)
    await desk.world.put("host", host_id, state="non_responsive")
    assert (await desk.get(f"/vms/{vm_id}")).json()["state"] == "unknown"


async def test_operations_are_paged_newest_first_without_a_gap(desk: Desk) -> None:
    made = [str(await desk.world.operation()) for _ in range(5)]
    listed: list[str] = []
    params = {"limit": "2"}
    while True:
        page = (await desk.get("/operations", params=params)).json()
        listed += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert listed == made[::-1]


async def test_operations_are_filtered_by_state_kind_and_target(desk: Desk) -> None:
    vm_id = await desk.world.vm()
    wanted = str(await desk.world.operation(vm_id, kind="vm.stop", state="running"))
    await desk.world.operation()
    filters = {"state": "running", "kind": "vm.stop", "target_id": str(vm_id)}
    for name, value in filters.items():
        page = (await desk.get("/operations", params={name: value})).json()
        assert [item["id"] for item in page["items"]] == [wanted], name


async def test_an_operation_comes_with_its_children(desk: Desk) -> None:
    parent_id = await desk.world.operation()
    child_id = await desk.world.operation(parent_id=parent_id)
    view = (await desk.get(f"/operations/{parent_id}")).json()
    assert [child["id"] for child in view["children"]] == [str(child_id)]


async def test_an_incident_comes_with_its_certificate_and_the_vms_it_hit(desk: Desk) -> None:
    world = desk.world
    host_id, vm_id = await world.host(), await world.vm(protected=True)
    await world.running(vm_id, host_id)
    await world.certificate(host_id)
    (listed,) = (await desk.get("/incidents")).json()["items"]
    view = (await desk.get(f"/incidents/{listed['id']}")).json()
    assert (view["host_name"], view["open"]) == ("h1", True)
    assert view["certificate"]["state"] == "valid"
    assert (await desk.get(f"/hosts/{host_id}")).json()["open_incident_id"] == view["id"]


async def test_closed_incidents_are_summed_up_over_a_time(desk: Desk) -> None:
    incident_id = await desk.world.incident(await desk.world.host())
    await desk.world.do(incidents.close, incident_id, "returned", desk.world.now)
    asked = {"cluster_id": str(desk.world.cluster_id), "since": "2000-01-01T00:00:00Z"}
    view = (await desk.get("/incidents/stats", params=asked)).json()
    assert (view["incidents"], view["outcomes"]) == (1, {"returned": 1})
    later = {"since": "2100-01-01T00:00:00Z"}
    assert (await desk.get("/incidents/stats", params=later)).json()["incidents"] == 0
    assert (await desk.get("/incidents/stats", params={"sincce": "x"})).status_code == 422


async def test_events_follow_a_cursor_without_a_gap_once_they_are_numbered(desk: Desk) -> None:
    for name in ("c2", "c3", "c4"):
        await accepted(desk, "/clusters", {"name": name})
    assert (await desk.get("/events")).json()["items"] == []
    await desk.world.do(plumbing.number_events, 100)
    first = (await desk.get("/events", params={"limit": 2})).json()
    rest = (await desk.get("/events", params={"after": first["next_cursor"]})).json()
    events = first["items"] + rest["items"]
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert [event["data"]["name"] for event in events] == ["c2", "c3", "c4"]
    assert {event["principal"] for event in events} == {"admin"}
    assert (await desk.get("/events", params={"after": 3})).json()["items"] == []


async def test_the_reason_of_a_request_stands_on_its_operation(desk: Desk) -> None:
    answer = await desk.post("/clusters", {"name": "c2"}, X_Reason="a new rack")
    assert answer.json()["reason"] == "a new rack"


async def test_health_is_told_without_a_token(desk: Desk) -> None:
    del desk.client.headers["Authorization"]
    for path in ("/livez", "/readyz"):
        assert (await desk.client.get(path)).json() == {"status": "ok"}

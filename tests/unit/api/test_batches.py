"""POST /batches: what is accepted, how wrong items are told, how the parent stays readable."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from engine.queries.batches import SHOWN
from store.ids import new_id
from store.rows import many
from store.schema import operation
from tests.unit.api.desk import Desk, Json, check_problem

pytestmark = pytest.mark.unit


async def vms(desk: Desk, count: int) -> list[UUID]:
    """VMs that are down, and a host with room for all of them."""
    await desk.world.host(memory_mib=10**6)
    return [await desk.world.vm(f"vm-{number:04}") for number in range(count)]


def starts(ids: list[UUID]) -> list[Json]:
    return [{"kind": "vm.start", "params": {"vm_id": str(one)}} for one in ids]


async def test_a_batch_is_answered_by_its_operation_with_its_children(desk: Desk) -> None:
    ids = await vms(desk, 3)
    answer = await desk.post("/batches", {"actions": starts(ids), "at_once": 1}, X_Reason="patch")
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert answer.headers["Location"] == f"/api/v1/operations/{body['id']}"
    assert (body["kind"], body["target_name"], body["reason"]) == ("batch", "3 × vm.start", "patch")
    assert [child["target_id"] for child in body["children"]] == [str(one) for one in ids]
    assert body["children_states"] == {"pending": 3}
    assert (body["progress_done"], body["progress_total"]) == (0, 3)
    assert {child["parent_id"] for child in body["children"]} == {body["id"]}


async def test_every_wrong_item_is_told_by_its_json_pointer(desk: Desk) -> None:
    (good,) = await vms(desk, 1)
    actions = [
        *starts([good]),
        {"kind": "vm.fly", "params": {}},
        {"kind": "vm.start", "params": {"vm_id": "x"}},
        {"kind": "vm.stop", "params": {"vm_id": str(good), "forse": True}},
        {"kind": "vm.start"},
    ]
    answer = await desk.post("/batches", {"actions": actions})
    document = check_problem(answer, 422, "REQUEST_INVALID")
    assert [error["pointer"] for error in document["errors"]] == [
        "/actions/1/kind",
        "/actions/2/params/vm_id",
        "/actions/3/params/forse",
        "/actions/4/params/vm_id",
    ]
    assert "vm.fly" in document["errors"][0]["detail"]
    assert (await desk.get("/operations")).json()["items"] == []


async def test_half_a_character_is_told_by_its_json_pointer_beside_what_else_is_wrong(
    desk: Desk,
) -> None:
    half: Json = {"host_id": str(uuid4()), "name": "b", "agent": "fence_ipmilan"}
    half |= {"secrets": {"password": "open\ud800"}}
    actions = [{"kind": "fence.add", "params": half}, {"kind": "vm.start"}]
    body = json.dumps({"actions": actions})  # ASCII, as the client cannot send half a character
    headers = {"Content-Type": "application/json"}
    answer = await desk.client.post("/api/v1/batches", content=body, headers=headers)
    document = check_problem(answer, 422, "REQUEST_INVALID")
    assert [error["pointer"] for error in document["errors"]] == [
        "/actions/0/params/secrets",
        "/actions/1/params/vm_id",
    ]
    assert "half of a surrogate pair" in document["errors"][0]["detail"]
    assert "ud800" not in answer.text


async def test_an_action_that_is_refused_does_not_keep_the_others_from_being_accepted(
    desk: Desk,
) -> None:
    (good,) = await vms(desk, 1)
    new_vm = {"cluster_id": str(uuid4()), "name": "app", "memory_mib": 64}
    actions = [
        {"kind": "cluster.create", "params": {"name": "c1"}},
        {"kind": "vm.create", "params": new_vm},
        *starts([good]),
    ]
    answer = await desk.post("/batches", {"actions": actions})
    assert answer.status_code == 202, answer.text
    assert answer.json()["children_states"] == {"failed": 2, "pending": 1}
    events = (await desk.get("/audit")).json()["items"]
    refused = [event["type"] for event in events if event["type"].endswith(".refused")]
    assert sorted(refused) == ["cluster.create.refused", "vm.create.refused"]


@pytest.mark.parametrize("kind", ["host.recover", "host.fence", "batch"])
async def test_what_the_engine_asks_only_of_itself_is_no_kind_to_ask_for(
    desk: Desk, kind: str
) -> None:
    params = {"host_id": str(uuid4()), "incident_id": str(uuid4())}
    answer = await desk.post("/batches", {"actions": [{"kind": kind, "params": params}]})
    document = check_problem(answer, 422, "REQUEST_INVALID")
    assert document["errors"][0]["pointer"] == "/actions/0/kind"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("vm.start", "licence_id", str(UUID(int=7))), ("host.activate", "rebooted_epoch", 1)],
)
async def test_a_field_that_only_the_engine_gives_is_refused_from_outside(
    desk: Desk, kind: str, field: str, value: Any
) -> None:
    params = {"vm_id" if kind == "vm.start" else "host_id": str(uuid4()), field: value}
    answer = await desk.post("/batches", {"actions": [{"kind": kind, "params": params}]})
    document = check_problem(answer, 422, "REQUEST_INVALID")
    assert document["errors"][0]["pointer"] == f"/actions/0/params/{field}"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"actions": None},
        {"actions": [1]},
        {"actions": [{"params": {}}]},
        {"actions": [{"kind": "vm.start", "params": []}]},
        {"actions": [{"kind": "vm.start", "params": {}, "more": 1}]},
        {"actions": [{"kind": 7, "params": {}}]},
        {"actions": [], "at_once": 0},
        {"actions": [], "at_once": 1001},
        {"actions": [], "stop": True},
    ],
    ids=str,
)
async def test_a_body_of_another_shape_is_refused(desk: Desk, body: Json) -> None:
    check_problem(await desk.post("/batches", body), 422, "REQUEST_INVALID")


@pytest.mark.parametrize(("count", "code"), [(0, "BATCH_EMPTY"), (1001, "BATCH_TOO_LARGE")])
async def test_too_few_or_too_many_actions_are_refused(desk: Desk, count: int, code: str) -> None:
    answer = await desk.post("/batches", {"actions": starts([new_id()] * count)})
    check_problem(answer, 422, code)


async def test_a_thousand_actions_fit_in_one_request_and_the_answer_stays_readable(
    desk: Desk,
) -> None:
    ids = await vms(desk, 999)
    wrong = {"kind": "vm.stop", "params": {"vm_id": str(ids[500])}}
    answer = await desk.post("/batches", {"actions": [*starts(ids), wrong]})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["children_states"] == {"failed": 1, "pending": 999}
    assert len(body["children"]) == SHOWN
    assert body["children"][0]["problem"]["code"] == "VM_NOT_RUNNING"
    assert len(answer.content) < 300_000
    page = await desk.get(f"/operations?parent_id={body['id']}&limit=500")
    assert len(page.json()["items"]) == 500


async def test_with_all_or_nothing_the_answer_names_every_refused_action(desk: Desk) -> None:
    (good,) = await vms(desk, 1)
    actions = [*starts([good, new_id()]), {"kind": "vm.stop", "params": {"vm_id": str(good)}}]
    answer = await desk.post("/batches", {"actions": actions, "all_or_nothing": True})
    document = check_problem(answer, 422, "BATCH_REFUSED")
    told = [(one["context"]["index"], one["code"]) for one in document["problems"]]
    assert told == [(1, "VM_NOT_FOUND"), (2, "VM_NOT_RUNNING")]
    assert (await desk.get("/operations")).json()["items"] == []


async def test_a_dry_run_of_a_batch_is_an_answer_without_an_operation(desk: Desk) -> None:
    (good,) = await vms(desk, 1)
    answer = await desk.post("/batches?dry_run=true", {"actions": starts([good, good])})
    assert answer.status_code == 200
    body = answer.json()
    assert body["allowed"] is False
    assert [item["allowed"] for item in body["actions"]] == [True, False]
    assert (await desk.get("/operations")).json()["items"] == []


async def test_a_repeated_batch_under_one_key_is_the_same_operation(desk: Desk) -> None:
    ids = await vms(desk, 2)
    body = {"actions": starts(ids)}
    first = await desk.post("/batches", body, Idempotency_Key="k1")
    again = await desk.post("/batches", body, Idempotency_Key="k1")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = await desk.post("/batches", {"actions": starts(ids[:1])}, Idempotency_Key="k1")
    check_problem(other, 422, "IDEMPOTENCY_KEY_REUSED")


async def test_secrets_of_an_item_are_in_no_answer_and_in_no_row(desk: Desk) -> None:
    host = await desk.world.host()
    params: Json = {"host_id": str(host), "name": "bmc1", "agent": "fence_nothing"}
    params |= {"secrets": {"password": "hunter2"}}
    refused = await desk.post("/batches", {"actions": [{"kind": "fence.add", "params": params}]})
    assert refused.json()["children"][0]["problem"]["code"] == "FENCE_AGENT_UNKNOWN"
    item = {"kind": "fence.add", "params": params | {"more": 1}}
    wrong = await desk.post("/batches", {"actions": [item]})
    check_problem(wrong, 422, "REQUEST_INVALID")
    rows = await desk.world.do(many, sa.select(operation))
    assert len(rows) == 2
    assert "hunter2" not in refused.text + wrong.text + str(rows)

"""What a request carries beside its body, and the description of all requests."""

import asyncio
import json
from uuid import UUID

import pytest

from api.frame import CORRELATION
from tests.unit.api.desk import PROBLEM, PUBLIC, Desk, check_problem

pytestmark = pytest.mark.unit


async def test_a_repeated_key_gives_the_first_answer_and_says_so(desk: Desk) -> None:
    first = await desk.post("/clusters", {"name": "c2"}, Idempotency_Key="k1")
    again = await desk.post("/clusters", {"name": "c2"}, Idempotency_Key="k1")
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.json()) == (202, first.json())
    assert len((await desk.get("/operations")).json()["items"]) == 1


async def test_a_key_in_the_quotes_of_a_structured_field_is_the_same_key(desk: Desk) -> None:
    first = await desk.post("/clusters", {"name": "c2"}, Idempotency_Key="k1")
    again = await desk.post("/clusters", {"name": "c2"}, Idempotency_Key='"k1"')
    assert again.json()["id"] == first.json()["id"]


async def test_a_key_that_was_used_for_another_request_is_refused(desk: Desk) -> None:
    first = await desk.post("/clusters", {"name": "c2"}, Idempotency_Key="k1")
    other = await desk.post("/clusters", {"name": "c3"}, Idempotency_Key="k1")
    document = check_problem(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert document["context"] == {"operation_id": first.json()["id"]}
    assert len((await desk.get("/clusters")).json()["items"]) == 2


async def test_another_secret_under_the_same_key_is_another_request(desk: Desk) -> None:
    host_id = await desk.world.host()
    body = {"host_id": str(host_id), "name": "bmc1", "agent": "fence_ipmilan"}
    one, two = ({"secrets": {"password": word}} for word in ("sesame", "sesame2"))
    assert (await desk.post("/fence-devices", body | one, Idempotency_Key="k")).is_success
    assert (await desk.post("/fence-devices", body | one, Idempotency_Key="k")).is_success
    other = await desk.post("/fence-devices", body | two, Idempotency_Key="k")
    check_problem(other, 422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_refused_request_leaves_its_key_free(desk: Desk) -> None:
    taken = await desk.post("/clusters", {"name": "c1"}, Idempotency_Key="k1")
    check_problem(taken, 409, "NAME_TAKEN")
    assert (await desk.post("/clusters", {"name": "c2"}, Idempotency_Key="k1")).is_success


@pytest.mark.parametrize("key", ["", '""', "two words", "k" * 129, "k" * 200, "schlüssel"])
async def test_a_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}
    answer = await desk.client.post("/api/v1/clusters", json={"name": "c2"}, headers=headers)
    check_problem(answer, 422)
    assert (await desk.get("/operations")).json()["items"] == []


async def test_identical_requests_at_once_become_one_operation(desk: Desk) -> None:
    vm_id = await desk.world.vm()
    await desk.world.host()
    path = f"/vms/{vm_id}/actions/start"
    answers = await asyncio.gather(*(desk.post(path, {}, Idempotency_Key="k1") for _ in range(12)))
    assert {answer.status_code for answer in answers} == {202}
    (operation_id,) = {answer.json()["id"] for answer in answers}
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 11
    await desk.backend.close()
    assert desk.deliverer.delivered == [UUID(operation_id)]


async def test_a_correlation_id_is_taken_answered_and_kept_with_the_operation(desk: Desk) -> None:
    answer = await desk.post("/clusters", {"name": "c2"}, Correlation_Id="ticket:4711")
    assert answer.headers["Correlation-Id"] == "ticket:4711"
    assert answer.json()["correlation_id"] == "ticket:4711"


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, 'a"b', "<script>"])
async def test_an_unusable_correlation_id_is_replaced(desk: Desk, given: str) -> None:
    answer = await desk.post("/clusters", {"name": "c2"}, Correlation_Id=given)
    made = answer.headers["Correlation-Id"]
    assert made != given
    assert CORRELATION.fullmatch(made)
    assert answer.json()["correlation_id"] == made


async def test_each_request_without_a_correlation_id_gets_its_own(desk: Desk) -> None:
    made = {(await desk.get("/vms")).headers["Correlation-Id"] for _ in range(3)}
    assert len(made) == 3


async def test_the_description_documents_the_problems_and_the_token_of_every_operation(
    desk: Desk,
) -> None:
    document = (await desk.client.get("/api/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert "ProblemDocument" in document["components"]["schemas"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if not path.startswith("/api/") or path in PUBLIC:
                continue
            assert operation["security"] == [{"token": []}], (method, path)
            for status in ("400", "401", "404", "409", "413", "422", "503"):
                content = operation["responses"][status]["content"]
                reference = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
                assert content == {PROBLEM: reference}, (method, path, status)


async def test_the_description_refers_to_nothing_that_it_lacks(desk: Desk) -> None:
    text = (await desk.client.get("/api/v1/openapi.json")).text
    names = set(json.loads(text)["components"]["schemas"])
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names

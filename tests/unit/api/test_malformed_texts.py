"""Half a surrogate pair, which JSON can spell, is a wrong request and no defect."""

import json

import pytest

from tests.unit.api.desk import PROBLEM, Desk

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("field", ["options", "secrets"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_half_a_character_is_answered_with_422(desk: Desk, method: str, field: str) -> None:
    host_id = await desk.world.host()
    device_id = await desk.world.device(host_id)
    body = json.dumps({field: {"username": "open\ud800sesame"}})[:-1]
    path = f"/api/v1/fence-devices/{device_id}"
    if method == "POST":
        path = "/api/v1/fence-devices"
        body += f', "host_id": "{host_id}", "name": "b", "agent": "fence_ipmilan"'
    headers = {"Content-Type": "application/json"}
    answer = await desk.client.request(method, path, content=body + "}", headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, PROBLEM)
    assert answer.json()["code"] == "TEXT_MALFORMED"
    assert "sesame" not in answer.text

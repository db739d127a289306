"""Whatever is sent: a refusal with a problem document, never a defect of the engine."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.desk import PROBLEM, Desk

pytestmark = pytest.mark.unit

GARBAGE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""The database is shared by the examples of one test: each must hold whatever came before it."""

# JSON can spell halves of surrogate pairs, which no database and no UTF-8 can hold.
TEXT = st.text(st.characters(codec=None), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = ("name", "profile", "cluster_id", "host_id", "uri", "agent", "options", "secrets")
MORE = ("deadline_s", "memory_mib", "vcpus", "priority", "depends_on", "disks", "boot", "force")
BODIES = st.dictionaries(st.sampled_from(NAMES + MORE) | TEXT, VALUES, max_size=8) | VALUES
PIECES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
HEADERS = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40)


def completed(desk: Desk, body: object) -> object:
    """The body with real ids where it only has to get past the first check."""
    if not isinstance(body, dict):
        return body
    return {"cluster_id": str(desk.world.cluster_id), "name": "web", "memory_mib": 64} | body


@GARBAGE
@given(data=st.data())
async def test_garbage_in_a_body_is_never_a_defect(desk: Desk, data: st.DataObject) -> None:
    asked = sorted((m, path) for m, path in desk.operations() if m in ("POST", "PATCH"))
    method, path = data.draw(st.sampled_from(asked))
    body = data.draw(BODIES)
    if data.draw(st.booleans()):
        body = completed(desk, body)
    filled = path.replace("{", "").replace("}", "")
    for name in ("cluster_id", "host_id", "vm_id"):
        filled = filled.replace(name, str(desk.world.cluster_id))
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body).encode()
    answer = await desk.client.request(method, filled, content=content, headers=headers)
    assert answer.status_code < 500, answer.text
    assert answer.is_success or answer.headers["Content-Type"] == PROBLEM


@GARBAGE
@given(data=st.data())
async def test_garbage_in_a_path_or_query_is_never_a_defect(
    desk: Desk, data: st.DataObject
) -> None:
    gets = sorted(path for method, path in desk.operations() if method == "GET")
    path = data.draw(st.sampled_from(gets))
    parts = [quote(data.draw(PIECES), safe="") if p.startswith("{") else p for p in path.split("/")]
    fields = st.sampled_from(
        ["name", "limit", "after", "cursor", "state", "kind", "target_id", "minutes", "host_id"]
    )
    params = data.draw(st.dictionaries(fields, PIECES | st.integers().map(str), max_size=4))
    answer = await desk.client.get("/".join(parts), params=params)
    assert answer.status_code < 500, answer.text
    assert answer.is_success or answer.headers["Content-Type"] == PROBLEM


@GARBAGE
@given(
    name=st.sampled_from(["Idempotency-Key", "Correlation-Id", "X-Reason", "If-Match"]),
    value=HEADERS,
)
async def test_garbage_in_a_header_is_never_a_defect(desk: Desk, name: str, value: str) -> None:
    path = f"/api/v1/clusters/{desk.world.cluster_id}"
    headers = {name.encode(): value.encode("latin-1")}
    answer = await desk.client.patch(path, json={}, headers=headers)
    assert answer.status_code < 500, answer.text


@GARBAGE
@given(body=st.binary(max_size=64), kind=st.sampled_from(["application/json", "text/plain", "?"]))
async def test_bytes_of_any_kind_are_never_a_defect(desk: Desk, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind}
    answer = await desk.client.post("/api/v1/clusters", content=body, headers=headers)
    assert answer.status_code < 500, answer.text
    assert answer.is_success or answer.headers["Content-Type"] == PROBLEM


async def test_nesting_without_end_is_never_a_defect(desk: Desk) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"name":' + b"[" * 100_000
    answer = await desk.client.post("/api/v1/clusters", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text

"""Secrets of devices and SSH: no answer, no log line and no byte of the database shows them."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from drivers.secrets import SecretBox
from engine.backend import Backend
from engine.registry import all_actions, all_queries
from store import soft_steps
from store.rows import Row
from tests.store.scenes import HOST_KEY
from tests.unit.api.desk import Agents, Desk, Json

pytestmark = pytest.mark.unit

SECRET = "open-sesame-4711"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything the engine or a library logs."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root, before = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(written),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    yield written
    structlog.reset_defaults()
    root.removeHandler(handler)
    root.setLevel(before)


async def body_of(desk: Desk, **changes: object) -> Json:
    found = (await desk.get("/hosts", params={"name": "h1"})).json()["items"]
    host_id = found[0]["id"] if found else str(await desk.world.host())
    body: Json = {"host_id": host_id, "name": "bmc1", "agent": "fence_ipmilan"}
    return body | {"options": {"ip": "192.0.2.1"}, "secrets": {"password": SECRET}} | changes


@pytest.fixture
def sealed(desk: Desk, tmp_path: Path) -> SecretBox:
    """The desk with the product's own sealing."""
    box = SecretBox.open_or_create(tmp_path / "secret.key")
    actions = all_actions(box, Agents())
    desk.app.state.backend = Backend(desk.database, actions, all_queries(), desk.deliverer)
    return box


async def test_a_secret_is_seen_nowhere_once_it_was_sent(
    desk: Desk, sealed: SecretBox, database_file: Path, log: io.StringIO
) -> None:
    body = await body_of(desk)
    answers = [await desk.post("/fence-devices", body, Idempotency_Key="k") for _ in range(2)]
    for path in ("/fence-devices", "/operations", "/events", "/hosts"):
        answers.append(await desk.get(path))
    assert [answer.is_success for answer in answers] == [True] * 6
    assert "bmc1" in answers[2].text
    for answer in answers:
        assert SECRET not in answer.text
    stored = b"".join(path.read_bytes() for path in database_file.parent.glob("holdfast.db*"))
    assert b"bmc1" in stored
    assert SECRET.encode() not in stored
    assert "action accepted" in log.getvalue()
    assert SECRET not in log.getvalue()


async def test_what_was_sealed_is_what_was_sent(desk: Desk, sealed: SecretBox) -> None:
    await desk.post("/fence-devices", await body_of(desk))
    (device,) = (await desk.get("/fence-devices")).json()["items"]
    row = await desk.world.get("fence_device", UUID(device["id"]))
    assert sealed.open(row["secrets"])["password"].get_secret_value() == SECRET


async def test_a_secret_that_replaces_another_is_seen_nowhere_and_keeps_its_neighbours(
    desk: Desk, sealed: SecretBox, database_file: Path, log: io.StringIO
) -> None:
    both = {"password": "first-4711", "snmp_priv_passwd": "second-4711"}
    await desk.post("/fence-devices", await body_of(desk, secrets=both))
    (device,) = (await desk.get("/fence-devices")).json()["items"]
    path = f"/api/v1/fence-devices/{device['id']}"
    answer = await desk.client.patch(path, json={"secrets": {"password": SECRET}})
    assert answer.json()["summary"] == "changed secrets"
    row = await desk.world.get("fence_device", UUID(device["id"]))
    opened = {key: value.get_secret_value() for key, value in sealed.open(row["secrets"]).items()}
    assert opened == both | {"password": SECRET}
    told = answer.text + (await desk.get("/audit")).text + log.getvalue()
    stored = b"".join(file.read_bytes() for file in database_file.parent.glob("holdfast.db*"))
    assert "secrets_changed" in told
    assert [word for word in (SECRET, *both.values()) if word in told] == []
    assert SECRET.encode() not in stored


async def test_a_private_key_for_ssh_is_seen_nowhere_once_it_was_sent(
    desk: Desk, sealed: SecretBox, database_file: Path, log: io.StringIO
) -> None:
    host_id = await desk.world.host()
    word = "c2VjcmV0LTQ3MTE"
    key = f"-----BEGIN PRIVATE KEY-----\n{word}=\n-----END PRIVATE KEY-----\n"
    ssh = {"user": "holdfast", "host_key": HOST_KEY, "private_key": key}
    answers = [await desk.client.patch(f"/api/v1/hosts/{host_id}", json={"ssh": ssh})]
    broken = ssh | {"private_key": f"-----BEGIN {word}"}
    answers.append(await desk.client.patch(f"/api/v1/hosts/{host_id}", json={"ssh": broken}))
    answers.append(await desk.client.patch(f"/api/v1/hosts/{host_id}", json={"ssh": [word]}))
    assert [answer.status_code for answer in answers] == [202, 422, 422]
    for path in ("/hosts", "/operations", "/events", "/audit"):
        answers.append(await desk.get(path))
    stored = b"".join(path.read_bytes() for path in database_file.parent.glob("holdfast.db*"))
    assert [word in answer.text for answer in answers] == [False] * 7
    assert b"holdfast" in stored
    assert word.encode() not in stored
    assert word not in log.getvalue()
    (row,) = await desk.world.do(accesses_of, host_id)
    assert sealed.open(row["secrets"])["private_key"].get_secret_value() == key


async def accesses_of(connection: AsyncConnection, host_id: UUID) -> list[Row]:
    found = await soft_steps.access_of(connection, host_id)
    return [] if found is None else [found]


@pytest.mark.parametrize(
    "changes",
    [
        {"secrets": {"password": [SECRET]}},
        {"secrets": SECRET},
        {"agent": "fence_abacus"},
        {"name": "Not A Name"},
        {"deadline_s": SECRET},
    ],
)
async def test_a_refusal_does_not_repeat_a_secret(
    desk: Desk, sealed: SecretBox, log: io.StringIO, changes: Json
) -> None:
    answer = await desk.post("/fence-devices", await body_of(desk, **changes))
    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert SECRET not in log.getvalue()

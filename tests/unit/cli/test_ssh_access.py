"""SSH access as it is given and shown: the key from its file, the host key pinned, or nothing."""

from pathlib import Path

import pytest

from engine.soft_views import HostSshView, SoftStepView, SshAccessView
from tests.unit.cli.fake_engine import Desk, at, cluster, host, operation, plain, uid

pytestmark = pytest.mark.unit
PRIVATE = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.fixture
def ready(desk: Desk) -> Desk:
    desk.has(host(version=5), cluster(version=3))
    edited = plain(operation(kind="host.edit", summary="changed ssh"))
    desk.engine.on("PATCH", f"/hosts/{uid('h1')}", edited)
    desk.engine.on("PATCH", f"/clusters/{uid('lab')}", edited)
    asked = plain(operation(kind="host.restart_libvirtd", summary="libvirt answers again"))
    desk.engine.on("POST", f"/hosts/{uid('h1')}/actions/restart-libvirtd", asked)
    return desk


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "restart_key"
    path.write_text(PRIVATE)
    return path


def test_access_is_given_with_the_key_of_a_file_and_a_pinned_host_key(
    ready: Desk, key: Path, tmp_path: Path
) -> None:
    pinned = tmp_path / "ssh_host_ed25519_key.pub"
    pinned.write_text(f"{HOST_KEY} root@h1\n")
    words = ["--ssh-user", "holdfast", "--ssh-port", "2222", "--ssh-key-file", str(key)]
    result = ready.run("host", "edit", "h1", *words, "--ssh-host-key", f"@{pinned}")
    assert result.exit_code == 0, result.output
    access = {"user": "holdfast", "port": 2222, "host_key": HOST_KEY, "private_key": PRIVATE}
    assert ready.engine.body() == {"ssh": access}
    assert "c2VzYW1l" not in result.output


def test_access_is_given_as_a_whole_and_no_host_key_is_trusted_unseen(
    ready: Desk, key: Path
) -> None:
    words = ["--ssh-user", "holdfast", "--ssh-key-file", str(key)]
    result = ready.run("host", "edit", "h1", *words)
    assert result.exit_code == 2
    assert "SSH_ACCESS_INCOMPLETE" in result.output
    assert "--ssh-host-key" in result.output
    assert ready.engine.posted() == []


def test_a_key_file_that_cannot_be_read_is_told(ready: Desk, tmp_path: Path) -> None:
    words = [
        "--ssh-user",
        "u",
        "--ssh-key-file",
        str(tmp_path / "none"),
        "--ssh-host-key",
        HOST_KEY,
    ]
    result = ready.run("host", "edit", "h1", *words)
    assert (result.exit_code, ready.engine.posted()) == (2, [])
    assert "FILE_UNREADABLE" in result.output


def test_access_is_taken_away(ready: Desk) -> None:
    assert ready.run("host", "edit", "h1", "--no-ssh").exit_code == 0
    assert ready.engine.body() == {"ssh": None}


@pytest.mark.parametrize(("word", "value"), [("on", True), ("off", False)])
def test_the_soft_step_of_a_cluster_is_switched(ready: Desk, word: str, value: bool) -> None:
    assert ready.run("cluster", "edit", "lab", "--soft-step", word).exit_code == 0
    assert ready.engine.body() == {"soft_step": value}


def test_a_person_restarts_libvirtd(ready: Desk) -> None:
    result = ready.run("host", "restart-libvirtd", "h1")
    assert result.exit_code == 0, result.output
    assert ready.engine.body() == {}


def test_a_host_shows_its_access_and_what_became_of_the_last_restart(ready: Desk) -> None:
    shown = SshAccessView(user="holdfast", port=22, host_key=HOST_KEY, fingerprint="SHA256:abc")
    step = SoftStepView(
        operation_id=uid("op"),
        at=at(-60),
        automatic=True,
        outcome="failed",
        detail="SSH_NO_ANSWER: nobody there",
        ended_at=at(-50),
        tries=2,
        next_try_at=at(60),
    )
    ready.has(host())
    found = HostSshView(access=shown, soft_step=step).model_dump(mode="json")
    ready.engine.on("GET", f"/hosts/{uid('h1')}/ssh", found)
    ready.engine.on("GET", f"/hosts/{uid('h1')}/monitors", [])
    output = " ".join(ready.run("host", "show", "h1").output.split())
    assert "holdfast, port 22, key SHA256:abc" in output
    assert "by itself" in output
    assert "failed; SSH_NO_ANSWER: nobody there; 2 of 3 tries in an hour; the next not" in output

"""`edit` and `remove`: what is asked for, at which version, and what is refused before that."""

import json

import pytest

from tests.unit.cli.fake_engine import (
    Desk,
    Json,
    at,
    cluster,
    fence_device,
    host,
    network,
    operation,
    plain,
    problem,
    uid,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def full(desk: Desk) -> Desk:
    """An engine with one of each, at the versions 3, 4, 5 and 6."""
    desk.has(
        cluster(version=3),
        network(version=4),
        host(version=5),
        fence_device(version=6),
    )
    return desk


CLUSTER, NETWORK, HOST = f"/clusters/{uid('lab')}", f"/networks/{uid('lan')}", f"/hosts/{uid('h1')}"
FENCE = f"/fence-devices/{uid('h1-bmc')}"
EDITS: list[tuple[str, str, int, Json]] = [
    ("cluster edit lab --name east", CLUSTER, 3, {"name": "east"}),
    (
        f"cluster edit {uid('lab')} --profile fast --virt-type kvm --version 2",
        CLUSTER,
        2,
        {"profile": "fast", "virt_type": "kvm"},
    ),
    ("network edit lan --bridge br9 --name wan", NETWORK, 4, {"bridge": "br9", "name": "wan"}),
    ("network edit lan --nat", NETWORK, 4, {"bridge": None}),
    (f"network edit {uid('lan')} --nat --name w", NETWORK, 4, {"bridge": None, "name": "w"}),
    ("host edit h1 --uri qemu+tls://x/system", HOST, 5, {"uri": "qemu+tls://x/system"}),
    ("host edit h1 --rack r1 --site north", HOST, 5, {"rack": "r1", "site": "north"}),
    (
        "cluster edit lab --fences 3 --fences-percent 20 --rack-fences 1 --fence-window 10m",
        CLUSTER,
        3,
        {"fences_max": 3, "fences_percent": 20, "rack_fences_max": 1, "fence_window_s": 600},
    ),
    (
        "cluster edit lab --site-fences-percent 25 --unlimited rack-fences",
        CLUSTER,
        3,
        {"site_fences_percent": 25, "rack_fences_max": None},
    ),
    ("cluster edit lab --failback-after 5m", CLUSTER, 3, {"failback_after_s": 300}),
    ("cluster edit lab --starts-per-host 3", CLUSTER, 3, {"starts_per_host": 3}),
    ("cluster edit lab --vcpu-overcommit 1.5", CLUSTER, 3, {"vcpu_overcommit": 1.5}),
    ("cluster edit lab --memory-overcommit 1.5", CLUSTER, 3, {"memory_overcommit": 1.5}),
    ("cluster edit lab --unlimited vcpu-overcommit", CLUSTER, 3, {"vcpu_overcommit": None}),
    ("host edit h1 --own-host", HOST, 5, {"own_host": True}),
    ("host edit h1 --not-own-host --name h9", HOST, 5, {"own_host": False, "name": "h9"}),
    (
        "fence edit h1-bmc --option ip=10.0.0.9 --without lanplus --deadline 3s",
        FENCE,
        6,
        {"options": {"ip": "10.0.0.9", "lanplus": None}, "deadline_s": 3.0},
    ),
    (
        f"fence edit {uid('h1-bmc')} --agent fence_redfish --without-secret password",
        FENCE,
        6,
        {"agent": "fence_redfish", "secrets": {"password": None}},
    ),
]
REMOVALS = [
    ("cluster remove lab", CLUSTER, 3),
    ("network remove lan", NETWORK, 4),
    ("host remove h1", HOST, 5),
    ("host remove h1 --version 9", HOST, 9),
    ("fence remove h1-bmc", FENCE, 6),
]


@pytest.mark.parametrize(("command", "path", "version", "body"), EDITS, ids=[e[0] for e in EDITS])
def test_a_change_names_only_what_is_wanted_and_the_version_that_was_read(
    full: Desk, command: str, path: str, version: int, body: Json
) -> None:
    full.engine.on("PATCH", path, plain(operation(summary="changed name")))
    result = full.run(*command.split(), "--reason", "move")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("succeeded: changed name\n")
    assert full.engine.body() == body
    [request] = full.engine.posted()
    assert request.headers["If-Match"] == f'"{version}"'
    assert request.headers["X-Reason"] == "move"
    assert len(request.headers["Idempotency-Key"].strip('"')) == 36


@pytest.mark.parametrize(("command", "path", "version"), REMOVALS, ids=[r[0] for r in REMOVALS])
def test_a_removal_has_no_body_and_the_version_that_was_read(
    full: Desk, command: str, path: str, version: int
) -> None:
    full.engine.on("DELETE", path, plain(operation(summary="removed")))
    result = full.run(*command.split())
    assert result.exit_code == 0, result.output
    [request] = full.engine.posted()
    assert (request.method, request.content) == ("DELETE", b"")
    assert request.headers["If-Match"] == f'"{version}"'


def test_an_object_that_changed_meanwhile_is_a_conflict(full: Desk) -> None:
    stale = problem(412, "VERSION_STALE", "host h1 is at version 6, the request expects 5")
    full.engine.on("PATCH", HOST, stale)
    result = full.run("host", "edit", "h1", "--name", "h9")
    assert result.exit_code == 6
    assert "VERSION_STALE" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "cluster edit lab",
        *(f"cluster edit lab --vcpu-overcommit {word}" for word in ("nan", "inf", "-1", "1:4")),
        "network edit lan",
        "network edit lan --nat --bridge br0",
        "host edit h1 --version 3",
        "host edit h1 --name x --version 0",
        "fence edit h1-bmc",
        "fence edit h1-bmc --option password=sesame",
        "fence edit h1-bmc --secret password=sesame",
    ],
)
def test_a_change_of_nothing_or_of_a_shown_secret_is_never_asked_for(
    full: Desk, command: str
) -> None:
    result = full.run(*command.split())
    assert result.exit_code == 2, result.output
    assert full.engine.posted() == []
    assert "sesame" not in result.output


def test_a_new_secret_of_a_device_is_read_from_a_variable(
    full: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMC_SECRET", "sesame")
    full.engine.on("PATCH", FENCE, plain(operation()))
    result = full.run("fence", "edit", "h1-bmc", "--secret-env", "password=BMC_SECRET")
    assert result.exit_code == 0, result.output
    assert full.engine.body() == {"secrets": {"password": "sesame"}}
    assert "sesame" not in result.output


def test_networks_are_created_in_the_only_cluster_and_listed(full: Desk) -> None:
    full.engine.on("POST", "/networks", plain(operation()))
    assert full.run("network", "create", "wan", "--bridge", "br1").exit_code == 0
    body = {"cluster_id": str(uid("lab")), "name": "wan", "bridge": "br1"}
    assert full.engine.body() == body
    full.has(network(), network("nat", bridge=None, vms=0))
    listed = full.run("network", "list").stdout
    assert [word for word in ("lan", "br0", "nat", "QEMU's own NAT") if word not in listed] == []


@pytest.mark.parametrize("noun", ["network", "fence", "cluster", "host"])
def test_an_unknown_name_is_not_found_and_says_how_to_list(full: Desk, noun: str) -> None:
    result = full.run(noun, "remove", "nowhere")
    assert result.exit_code == 3
    assert f"holdfast {noun} list" in result.stderr
    assert full.engine.posted() == []


def test_foreign_guests_are_a_table_or_say_why_there_are_none(full: Desk) -> None:
    guest = {"guest_id": str(uid("old")), "name": "old", "state": "running", "memory_mib": 64}
    found: Json = {"host_id": str(uid("h1")), "at": at(1).isoformat(), "guests": [guest]}
    none, never = found | {"guests": []}, found | {"at": None, "guests": []}
    full.engine.on("GET", f"{HOST}/foreign-guests", found, found, none, never)
    listed = full.run("host", "foreign-guests", "h1").stdout
    assert [w for w in ("old", "running", "64 MiB", str(uid("old"))) if w not in listed] == []
    as_json = full.run("host", "foreign-guests", "h1", "-o", "json")
    assert json.loads(as_json.stdout) == found
    assert "none ran there" in full.run("host", "foreign-guests", "h1").stderr
    assert "has not answered" in full.run("host", "foreign-guests", "h1").stderr

"""Every command asks the engine for the right thing and prints what it said."""

import json

import pytest

from tests.unit.cli.fake_engine import (
    Desk,
    Json,
    at,
    cluster,
    fence_device,
    host,
    operation,
    paged,
    plain,
    problem,
    step,
    uid,
    vm,
)

pytestmark = pytest.mark.unit

EVENT: Json = {
    "seq": 7,
    "type": "vm.start.succeeded",
    "subject_type": "vm",
    "subject_id": str(uid("db01")),
    "principal": "admin",
    "correlation_id": "chg-4711",
    "operation_id": str(uid("operation")),
    "data": {"name": "db01", "summary": "running on h2"},
    "at": at(2).isoformat(),
}
EYE: Json = {
    "monitor": "engine-1-monitor",
    "machine": "engine-1",
    "state": "watching",
    "verdict": "up",
    "since": at(0).isoformat(),
    "voted_at": at(1).isoformat(),
}
SAMPLE: Json = {
    "at": at(1).isoformat(),
    "memory_total_mib": 4096,
    "memory_free_mib": 1024,
    "cpus": 4,
    "took_s": 0.012,
    "guests": [{"name": "db01"}],
}


def page(*items: Json, cursor: str | None = None) -> Json:
    return {"items": list(items), "next_cursor": cursor}


@pytest.fixture
def full(desk: Desk) -> Desk:
    """An engine with one of everything."""
    desk.has(
        cluster(),
        host(vcpus_reserved=6, vcpus_allowed=8),
        host("h2", state="non_responsive", last_answer_at=None),
        vm("web", depends_on=(uid("db01"),)),
        vm(state="up", host_id=uid("h1"), host_name="h1", running_since=at(0), run_state="running"),
    )
    engine = desk.engine
    engine.on("GET", "/fence-devices", paged(fence_device()))
    engine.on("GET", "/operations", page(plain(operation()), cursor="0199"))
    whole = operation(steps=(step("guest.place"), step("guest.start", detail="on h2")))
    engine.on("GET", f"/operations/{uid('operation')}", plain(whole))
    engine.on("GET", "/events", page(EVENT, cursor="7"))
    engine.on("GET", f"/hosts/{uid('h1')}/samples", [SAMPLE])
    engine.on("GET", f"/hosts/{uid('h1')}/monitors", [EYE])
    engine.on("GET", f"/hosts/{uid('h1')}/ssh", {"access": None, "soft_step": None})
    return desk


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cluster list", ["lab", "armed", "balanced", "4.50 s", "20.5 s"]),
        (
            "cluster show lab",
            ["fences in", "of one rack", "at most 1", "no limit of its own"],
        ),
        ("cluster show lab", ["vCPU overcommit", "no limit"]),
        ("host list", ["h1", "up", "512/4096 MiB", "6/8", "h2", "non_responsive", "never"]),
        ("host show h1", ["qemu+tcp://h1/system", "h1-bmc", "db01", "engine-1-monitor  engine-1"]),
        ("host show h1", ["6 of 8 reserved", "512 of 4096 MiB reserved"]),
        ("host samples h1", ["1024 of 4096 MiB", "0.01 s", "07:00:01.000Z"]),
        ("vm list", ["db01", "up", "h1", "512 MiB", "web", "down"]),
        ("vm show db01", ["db01", "running", "processors"]),
        ("vm show web", ["starts after", "db01"]),
        ("fence list", ["h1-bmc", "fence_ipmilan", "on", "ip=10.0.0.1 lanplus=1"]),
        ("op list", [str(uid("operation")), "vm.start", "succeeded", "1.50 s", "running on h2"]),
        (f"op show {uid('operation')}", ["✓ guest.place", "✓ guest.start", "on h2", "chg-4711"]),
        ("event list", ["7", "vm.start.succeeded", "db01", "running on h2"]),
    ],
)
def test_a_table_shows_what_a_person_asks_for(full: Desk, command: str, words: list[str]) -> None:
    result = full.run(*command.split())
    assert result.exit_code == 0, result.output
    assert [word for word in words if word not in result.stdout] == []
    assert "\x1b" not in result.stdout, "no colour where nobody looks"


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("host show h1", f"/hosts/{uid('h1')}"),
        ("host samples h1", f"/hosts/{uid('h1')}/samples"),
        ("vm show db01", f"/vms/{uid('db01')}"),
        ("op list", "/operations"),
        (f"op show {uid('operation')}", f"/operations/{uid('operation')}"),
        ("event list", "/events"),
    ],
)
def test_json_is_what_the_api_answered(full: Desk, command: str, path: str) -> None:
    result = full.run(*command.split(), "-o", "json")
    [answer] = full.engine.answers["GET", "/api/v1" + path]
    expected = answer(full.engine.requests[-1]) if callable(answer) else answer
    assert json.loads(result.stdout) == expected
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("noun", "names"),
    [
        ("cluster", ["lab"]),
        ("host", ["h1", "h2"]),
        ("vm", ["web", "db01"]),
        ("fence", ["h1-bmc"]),
    ],
)
def test_json_of_a_list_of_names_is_every_item_of_every_page(
    full: Desk, noun: str, names: list[str]
) -> None:
    result = full.run(noun, "list", "-o", "json")
    assert [item["name"] for item in json.loads(result.stdout)] == names
    assert result.stderr == ""


@pytest.mark.parametrize("noun", ["cluster", "host", "vm", "fence", "op", "incident", "event"])
def test_an_empty_list_says_so_beside_the_data(desk: Desk, noun: str) -> None:
    paths = {"op": "operations", "fence": "fence-devices"}
    desk.engine.on("GET", f"/{paths.get(noun, noun + 's')}", page())
    result = desk.run(noun, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("no ")


def test_a_list_that_goes_on_says_how_to_see_the_rest(full: Desk) -> None:
    assert "more: --cursor 0199" in full.run("op", "list").stderr
    assert "more: --after 7" in full.run("event", "list", "--limit", "1").stderr


def test_lists_pass_their_filters_on_and_resolve_names(full: Desk) -> None:
    full.run("op", "list", "--state", "failed", "--vm", "db01", "--limit", "3", "--cursor", "c")
    params = dict(full.engine.requests[-1].url.params)
    expected = {"state": "failed", "target_id": str(uid("db01")), "limit": "3", "cursor": "c"}
    assert params == expected
    full.run("fence", "list", "--host", "h1")
    assert full.engine.requests[-1].url.params["host_id"] == str(uid("h1"))
    full.run("event", "list", "--after", "40")
    assert full.engine.requests[-1].url.params["after"] == "40"


@pytest.mark.parametrize("key", [(), ("--idempotency-key", "one")])
def test_all_clusters_are_disarmed_one_by_one_also_behind_one_that_refuses(
    desk: Desk, key: tuple[str, ...]
) -> None:
    names = ("lab", "east", "west")
    desk.has(*(cluster(name) for name in names))
    for name in names:
        path = f"/clusters/{uid(name)}/actions/disarm"
        no = problem(409, "INCIDENTS_WAIT", "the recovery of h1 waits")
        desk.engine.on("POST", path, no if name == "lab" else plain(operation("succeeded")))
    result = desk.run("cluster", "disarm", "--all", "--mode", "ignore", *key)
    asked = desk.engine.posted()
    assert [request.url.path for request in asked] == [
        f"/api/v1/clusters/{uid(name)}/actions/disarm" for name in names
    ]
    assert len({request.headers["Idempotency-Key"] for request in asked}) == 3
    assert "lab: the recovery of h1 waits" in result.stderr
    assert result.exit_code != 0


@pytest.mark.parametrize("words", [("cluster", "arm"), ("cluster", "disarm", "lab", "--all")])
def test_one_cluster_or_all_of_them_have_to_be_named(full: Desk, words: tuple[str, ...]) -> None:
    assert "CLUSTER_OR_ALL" in full.run(*words).stderr
    assert full.engine.posted() == []


ACTIONS = [
    (
        "cluster create east --profile fast --virt-type test",
        "/clusters",
        {"name": "east", "profile": "fast", "virt_type": "test"},
    ),
    ("cluster arm lab", f"/clusters/{uid('lab')}/actions/arm", {}),
    (
        f"cluster disarm {uid('lab')}",
        f"/clusters/{uid('lab')}/actions/disarm",
        {"mode": "hold"},
    ),
    (
        "cluster disarm lab --mode freeze",
        f"/clusters/{uid('lab')}/actions/disarm",
        {"mode": "freeze"},
    ),
    (
        "host add h3 qemu+tls://h3/system",
        "/hosts",
        {
            "cluster_id": str(uid("lab")),
            "name": "h3",
            "uri": "qemu+tls://h3/system",
            "own_host": False,
        },
    ),
    ("host activate h1", f"/hosts/{uid('h1')}/actions/activate", {}),
    (
        "host confirm-dead h1 --yes --seen unplugged",
        f"/hosts/{uid('h1')}/actions/confirm-dead",
        {"reason": "unplugged"},
    ),
    (
        "approval give h1 --yes --why burning --for 120",
        f"/hosts/{uid('h1')}/actions/approve-fence",
        {"reason": "burning", "lasts_s": 120},
    ),
    ("approval withdraw h1", f"/hosts/{uid('h1')}/actions/withdraw-approval", {}),
    (
        "vm create new --memory 2G --vcpus 2 --cluster lab --protected --priority 7 "
        "--depends-on db01 --disk /srv/a.img,qcow2,shareable --kernel /boot/k --cmdline quiet",
        "/vms",
        {
            "cluster_id": str(uid("lab")),
            "name": "new",
            "memory_mib": 2048,
            "vcpus": 2,
            "protected": True,
            "priority": 7,
            "depends_on": [str(uid("db01"))],
            "disks": [{"path": "/srv/a.img", "format": "qcow2", "shareable": True}],
            "boot": {"kernel": "/boot/k", "initrd": None, "cmdline": "quiet"},
        },
    ),
    ("vm start db01", f"/vms/{uid('db01')}/actions/start", {"host_id": None}),
    (
        f"vm start {uid('db01')} --host h1",
        f"/vms/{uid('db01')}/actions/start",
        {"host_id": str(uid("h1"))},
    ),
    ("vm stop db01", f"/vms/{uid('db01')}/actions/stop", {"force": False}),
    (
        "vm end-copy db01 --host h1",
        f"/vms/{uid('db01')}/actions/end-copy",
        {"host_id": str(uid("h1")), "last_copy": False},
    ),
    (
        "vm end-copy db01 --host h1 --last-copy",
        f"/vms/{uid('db01')}/actions/end-copy",
        {"host_id": str(uid("h1")), "last_copy": True},
    ),
    (
        "vm adopt-copy db01 --host h1",
        f"/vms/{uid('db01')}/actions/adopt-copy",
        {"host_id": str(uid("h1"))},
    ),
    ("vm stop db01 --force", f"/vms/{uid('db01')}/actions/stop", {"force": True}),
]


@pytest.mark.parametrize(("command", "path", "body"), ACTIONS, ids=[a[0] for a in ACTIONS])
def test_an_action_is_asked_for_once_with_a_key(
    full: Desk, command: str, path: str, body: Json
) -> None:
    full.engine.on("POST", path, plain(operation()))
    result = full.run(*command.split(), "--reason", "kernel\nupdate")
    assert result.exit_code == 0, result.output
    assert result.stdout == "vm.start db01 succeeded: running on h2\n"
    assert full.engine.body() == body
    [request] = full.engine.posted()
    assert request.headers["X-Reason"] == "kernel update"
    assert len(request.headers["Idempotency-Key"].strip('"')) == 36


def test_each_run_has_a_key_of_its_own_unless_one_is_given(full: Desk) -> None:
    full.engine.on("POST", f"/clusters/{uid('lab')}/actions/arm", plain(operation()))
    full.run("cluster", "arm", "lab")
    full.run("cluster", "arm", "lab")
    full.run("cluster", "arm", "lab", "--idempotency-key", "mine")
    keys = [request.headers["Idempotency-Key"] for request in full.engine.posted()]
    assert len(set(keys)) == 3
    assert keys[2] == '"mine"'


def test_a_request_carries_the_token_and_only_in_its_header(full: Desk) -> None:
    result = full.run("vm", "list")
    assert full.engine.requests[0].headers["Authorization"] == "Bearer t0ken"
    assert "t0ken" not in result.output + str(full.engine.requests[0].url)


def test_several_clusters_must_be_chosen_from(desk: Desk) -> None:
    desk.has(cluster("east"), cluster("west"))
    result = desk.run("host", "add", "h3", "test:///default")
    assert result.exit_code == 2
    assert "east, west" in result.stderr
    assert desk.engine.posted() == []


@pytest.mark.parametrize(
    "command",
    [
        "vm create new --memory lots",
        "vm create new --memory 64 --disk /a.img,vmdk",
        "vm create new --memory 64 --initrd /boot/i",
        "vm start db01 --timeout soon",
        "vm start db01 --idempotency-key ünsafe",
        "cluster create east --profile hasty",
        "op list --vm db01 --host h1",
        "op show not-an-id",
        "op wait not-an-id",
        "vm list -o yaml",
        "nonsense",
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_asked(full: Desk, command: str) -> None:
    result = full.run(*command.split())
    assert result.exit_code == 2, result.output
    assert full.engine.posted() == []
    assert result.stderr != ""


def test_a_host_that_starts_our_domains_by_itself_is_shown_with_what_to_do(full: Desk) -> None:
    assert "warning" not in full.run("host", "show", "h1").stdout
    full.has(host(autostart=("db01", "web")))
    shown = full.run("host", "show", "h1").stdout
    assert "h1 starts db01, web by itself at boot" in shown
    assert "`virsh autostart --disable web`" in shown

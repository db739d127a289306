"""Changing, importing and deleting VMs, and affinity groups: what is asked, and what is shown."""

from datetime import UTC, datetime
from typing import Any

import pytest

from engine.views import FailbackView, GroupRef, NicView
from tests.unit.cli.fake_engine import (
    Desk,
    Json,
    cluster,
    group,
    host,
    network,
    operation,
    plain,
    uid,
    vm,
)

pytestmark = pytest.mark.unit

VM, GROUP = f"/vms/{uid('db01')}", f"/affinity-groups/{uid('near')}"
GUEST = str(uid("guest"))
AT = datetime(2026, 11, 22, 7, tzinfo=UTC)
LAN = str(uid("lan"))


@pytest.fixture
def full(desk: Desk) -> Desk:
    """An engine with two VMs at version 4, a network, a group at version 7, and foreign guests."""
    desk.has(cluster(), network(), host(), group(), vm(version=4), vm("web", version=4))
    guests = [{"guest_id": GUEST, "name": "old", "state": "running", "memory_mib": 64}]
    found = {"host_id": str(uid("h1")), "at": None, "guests": guests}
    desk.engine.on("GET", f"/hosts/{uid('h1')}/foreign-guests", found)
    return desk


def done(desk: Desk, method: str, path: str, command: str) -> Json:
    desk.engine.on(method, path, plain(operation(summary="well done")))
    result = desk.run(*command.split())
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("succeeded: well done\n")
    return desk.engine.body()


EDITS: list[tuple[str, Json]] = [
    ("--name db --memory 2G --vcpus 4", {"name": "db", "memory_mib": 2048, "vcpus": 4}),
    ("--unprotected --priority 0", {"protected": False, "priority": 0}),
    ("--budget 90s", {"budget_s": 90}),
    ("--budget none --kernel none", {"budget_s": None, "boot": None}),
    ("--depends-on web", {"depends_on": [str(uid("web"))]}),
    ("--depends-on none --affinity none", {"depends_on": [], "affinity_group_ids": []}),
    ("--affinity near", {"affinity_group_ids": [str(uid("near"))]}),
    (
        "--nic lan,e1000,mac=52:54:00:00:00:01 --nic lan",
        {
            "nics": [
                {"network_id": LAN, "model": "e1000", "mac": "52:54:00:00:00:01"},
                {"network_id": LAN},
            ]
        },
    ),
    ("--nic none --disk none", {"nics": [], "disks": []}),
    ("--failback auto --home h1", {"failback": "auto", "home_id": str(uid("h1"))}),
    ("--failback off --home none", {"failback": "off", "home_id": None}),
    ("--hang restart --hang-after 90", {"on_hang": "restart", "hang_after_s": 90}),
    (
        "--disk /d/a.iso,cdrom --disk /d/b.img,scsi,readonly --kernel /boot/k",
        {
            "disks": [
                {
                    "path": "/d/a.iso",
                    "format": "raw",
                    "shareable": False,
                    "device": "cdrom",
                    "bus": "sata",
                },
                {
                    "path": "/d/b.img",
                    "format": "raw",
                    "shareable": False,
                    "read_only": True,
                    "bus": "scsi",
                },
            ],
            "boot": {"kernel": "/boot/k", "initrd": None, "cmdline": ""},
        },
    ),
]


@pytest.mark.parametrize(("options", "body"), EDITS, ids=[options for options, _ in EDITS])
def test_a_change_of_a_vm_names_only_what_is_wanted_at_the_version_that_was_read(
    full: Desk, options: str, body: Json
) -> None:
    assert done(full, "PATCH", VM, f"vm edit db01 {options}") == body
    assert full.engine.posted()[0].headers["If-Match"] == '"4"'


@pytest.mark.parametrize("noun", ["vm delete db01", "vm delete db01 --version 9"])
def test_a_vm_is_deleted_at_the_version_that_was_read_or_named(full: Desk, noun: str) -> None:
    full.engine.on("DELETE", VM, plain(operation()))
    assert full.run(*noun.split()).exit_code == 0
    [request] = full.engine.posted()
    assert request.headers["If-Match"] == ('"9"' if "--version" in noun else '"4"')
    assert request.content == b""


def test_a_new_vm_is_given_cards_a_budget_a_home_and_a_group(full: Desk) -> None:
    command = "vm create new --memory 64 --nic lan --budget 2m --affinity near"
    body = done(full, "POST", "/vms", f"{command} --home h1 --failback auto")
    assert (body["home_id"], body["failback"]) == (str(uid("h1")), "auto")
    assert (body["nics"], body["budget_s"]) == ([{"network_id": LAN}], 120)
    assert body["affinity_group_ids"] == [str(uid("near"))]


@pytest.mark.parametrize("named", ["old", GUEST])
def test_a_guest_is_imported_by_its_name_or_its_uuid(full: Desk, named: str) -> None:
    body = done(full, "POST", "/vms/import", f"vm import h1 {named} --name db02 --protected")
    assert body == {
        "host_id": str(uid("h1")),
        "guest_id": GUEST,
        "name": "db02",
        "protected": True,
        "priority": 50,
    }


def test_a_guest_that_its_host_was_not_heard_to_run_is_not_found(full: Desk) -> None:
    result = full.run("vm", "import", "h1", "nobody")
    assert (result.exit_code, full.engine.posted()) == (3, [])
    assert "virsh domuuid" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "vm edit db01",
        "vm edit db01 --version 3",
        "vm edit db01 --nic lan,vmxnet3",
        "vm edit db01 --disk /a.img,floppy",
        "vm edit db01 --kernel none --initrd /boot/i",
        "vm edit db01 --budget soon",
        "affinity edit near",
        "affinity create far",
    ],
)
def test_a_change_that_says_nothing_or_nonsense_is_never_asked_for(
    full: Desk, command: str
) -> None:
    result = full.run(*command.split())
    assert (result.exit_code, full.engine.posted()) == (2, []), result.output


def test_a_vm_is_shown_with_all_that_it_is_made_of(desk: Desk) -> None:
    nic: dict[str, Any] = {"network_id": uid("lan"), "network": "lan", "bridge": "br0"}
    parts: dict[str, Any] = {
        "nics": (NicView(**nic, mac="52:54:00:00:00:01", model="virtio"),),
        "disks": ({"path": "/d/a.img", "format": "raw", "bus": "scsi"},),
        "affinity_groups": (GroupRef(id=uid("near"), name="near"),),
        "gave_way": ("apart",),
        "budget_s": 90,
        "on_hang": "restart",
        "hang_after_s": 40,
        "agent_heard": True,
        "agent_silent_since": datetime(2026, 11, 22, 7, tzinfo=UTC),
        "stops_again_at": datetime(2026, 11, 22, 8, tzinfo=UTC),
    }
    desk.has(vm(**parts))
    shown = desk.run("vm", "show", "db01").stdout
    for words in (
        "52:54:00:00:00:01 virtio on lan (br0)",
        "/d/a.img raw scsi",
        "affinity             near",
        "rules that gave way  apart",
        "1 min 30 s",
        "agent heard          yes",
        "agent silent since   2026-11-22 07:00:00Z (",
        "stops again at       2026-11-22 08:00:00Z, to make room for another VM",
        "on hang              restart after 40 s of silence",
    ):
        assert words in shown


def test_affinity_groups_are_listed_and_shown_by_name(full: Desk) -> None:
    full.has(group("off", together=False, hard=False, host_ids=(uid("h1"),)))
    listed = full.run("affinity", "list").stdout
    assert "off hosts" not in listed
    assert all(word in listed for word in ("off its hosts", "soft"))
    shown = full.run("affinity", "show", "off").stdout
    assert all(word in shown for word in ("db01", "h1", "soft"))


GROUPS: list[tuple[str, str, str, Json]] = [
    (
        "affinity create far --apart --hard --vm db01 --vm web",
        "POST",
        "/affinity-groups",
        {
            "cluster_id": str(uid("lab")),
            "name": "far",
            "together": False,
            "hard": True,
            "vm_ids": [str(uid("db01")), str(uid("web"))],
        },
    ),
    ("affinity edit near --soft --vm none", "PATCH", GROUP, {"hard": False, "vm_ids": []}),
    (
        "affinity edit near --host h1 --name there",
        "PATCH",
        GROUP,
        {"host_ids": [str(uid("h1"))], "name": "there"},
    ),
]


@pytest.mark.parametrize(
    ("command", "method", "path", "body"), GROUPS, ids=[line[0] for line in GROUPS]
)
def test_an_affinity_group_is_asked_for_as_the_api_takes_it(
    full: Desk, command: str, method: str, path: str, body: Json
) -> None:
    assert done(full, method, path, command) == body


def test_an_affinity_group_is_deleted_at_the_version_that_was_read(full: Desk) -> None:
    full.engine.on("DELETE", GROUP, plain(operation()))
    assert full.run("affinity", "delete", "near").exit_code == 0
    assert full.engine.posted()[0].headers["If-Match"] == '"7"'


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (
            {"code": "TRIES_AGAIN", "detail": "it has failed", "tries_at": AT},
            "home h1, failback tries again at 2026-11-22 07:00:00Z: TRIES_AGAIN: it has failed",
        ),
        (
            {"code": "HOME_NOT_STABLE", "detail": "h1 is young", "tries_at": AT},
            "home h1, failback not before 2026-11-22 07:00:00Z: HOME_NOT_STABLE: h1 is young",
        ),
        ({"code": "RESTS", "detail": "a person"}, "home h1, RESTS: a person"),
    ],
)
def test_a_vm_tells_its_home_and_why_it_is_not_there(
    desk: Desk, standing: Json, words: str
) -> None:
    desk.has(vm(failback="auto", home="h1", goes_home=FailbackView(**standing)))
    assert words in desk.run("vm", "show", "db01").stdout


def test_a_home_alone_is_told_too(desk: Desk) -> None:
    off = FailbackView(code="FAILBACK_OFF", detail="it stays")
    desk.has(vm(failback="off", home="h1", goes_home=off))
    assert "off; home h1" in desk.run("vm", "show", "db01").stdout

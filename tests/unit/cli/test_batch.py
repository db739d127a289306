"""`holdfast batch run FILE`: names become ids, options go along, what is no batch is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.fake_engine import Desk, Json, host, operation, plain, uid, vm

pytestmark = pytest.mark.unit

STARTS: list[Json] = [
    {"kind": "vm.start", "params": {"vm": "db01", "host": "h1"}},
    {"kind": "vm.start", "params": {"vm_id": str(uid("web01"))}},
    {"kind": "vm.stop", "params": {"vm": "db01", "force": True}},
]


def written(folder: Path, value: Any) -> str:
    path = folder / "actions.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def accepted(desk: Desk) -> None:
    desk.has(vm("db01"), vm("web01"), host("h1"))
    ended = operation(kind="batch", target_name="3 actions", state="succeeded")
    desk.engine.on("POST", "/batches", plain(ended))


def test_a_files_actions_are_asked_for_at_once_with_ids_for_names(
    desk: Desk, tmp_path: Path
) -> None:
    accepted(desk)
    file = written(tmp_path, STARTS)
    result = desk.run("batch", "run", file, "--at-once", "7", "--stop-on-error")
    assert result.exit_code == 0, result.output
    assert desk.engine.body() == {
        "actions": [
            {
                "kind": "vm.start",
                "params": {"vm_id": str(uid("db01")), "host_id": str(uid("h1"))},
            },
            {"kind": "vm.start", "params": {"vm_id": str(uid("web01"))}},
            {"kind": "vm.stop", "params": {"vm_id": str(uid("db01")), "force": True}},
        ],
        "at_once": 7,
        "stop_on_error": True,
        "all_or_nothing": False,
    }
    looked_up = [r.url.params.get("name") for r in desk.engine.requests if r.method == "GET"]
    assert looked_up.count("db01") == 1
    assert "Idempotency-Key" in desk.engine.posted()[0].headers


def test_actions_may_come_from_the_standard_input(desk: Desk) -> None:
    accepted(desk)
    result = desk.run("batch", "run", "-", "--all-or-nothing", given=json.dumps(STARTS))
    assert result.exit_code == 0, result.output
    assert desk.engine.body()["all_or_nothing"] is True
    assert len(desk.engine.body()["actions"]) == 3


@pytest.mark.parametrize("text", ["", "no json", "{}", '["vm.start"]', "7"])
def test_a_file_that_holds_no_actions_is_told_before_anything_is_asked(
    desk: Desk, tmp_path: Path, text: str
) -> None:
    result = desk.run("batch", "run", written(tmp_path, text))
    assert result.exit_code == 2
    assert "FILE_UNREADABLE" in result.output
    assert desk.engine.requests == []


def test_a_file_that_is_not_there_is_told(desk: Desk, tmp_path: Path) -> None:
    result = desk.run("batch", "run", str(tmp_path / "none.json"))
    assert result.exit_code == 2
    assert "FILE_UNREADABLE" in result.output


def test_a_dry_run_shows_what_would_become_of_each_action(desk: Desk, tmp_path: Path) -> None:
    no = {"code": "VM_NOT_DOWN", "detail": "db01 is running on h1"}
    items = [
        {"kind": "vm.start", "target_name": "web01", "allowed": True, "problems": []},
        {"kind": "vm.start", "target_name": "db01", "allowed": False, "problems": [no]},
    ]
    desk.has(vm("db01"), host("h1"))
    desk.engine.on("POST", "/batches", {"allowed": False, "actions": items})
    result = desk.run("batch", "run", written(tmp_path, STARTS), "--dry-run")
    assert result.exit_code == 0, result.output
    (request,) = desk.engine.posted()
    assert request.url.params["dry_run"] == "true"
    assert "VM_NOT_DOWN" in result.output
    assert "1 of 2 would be accepted" in result.output


def test_a_dry_run_of_all_or_nothing_ends_as_a_conflict_when_one_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    yes: Any = {"kind": "vm.start", "target_name": "web01", "allowed": True, "problems": []}
    desk.has(vm("db01"), host("h1"))
    for items, code in (([yes, yes], 0), ([yes, yes | {"allowed": False}], 6)):
        desk.engine.on("POST", "/batches", {"allowed": code == 0, "actions": items})
        asked = ("batch", "run", written(tmp_path, STARTS), "--dry-run", "--all-or-nothing")
        result = desk.run(*asked)
        assert result.exit_code == code, result.output


@pytest.mark.parametrize(
    ("verb", "how"),
    [("start", {"host_id": None}), ("stop", {"force": False})],
    ids=["start", "stop"],
)
def test_many_vms_named_at_once_go_in_one_batch(desk: Desk, verb: str, how: Any) -> None:
    accepted(desk)
    result = desk.run("vm", verb, "db01", "web01")
    assert result.exit_code == 0, result.output
    (request,) = desk.engine.posted()
    assert request.url.path == "/api/v1/batches"
    assert desk.engine.body()["actions"] == [
        {"kind": f"vm.{verb}", "params": {"vm_id": str(uid(name))} | how}
        for name in ("db01", "web01")
    ]

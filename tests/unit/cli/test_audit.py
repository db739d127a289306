"""The audit trail on the command line: filters by name and time, and what a person reads."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import typer

from cli.failures import Exit
from cli.values import moment
from tests.unit.cli.fake_engine import Desk, Json, at, host, uid, vm

pytestmark = pytest.mark.unit

EVENT: Json = {
    "seq": None,
    "type": "cluster.arm.done",
    "subject_type": "cluster",
    "subject_id": str(uid("lab")),
    "principal": "ann",
    "correlation_id": "chg-7",
    "operation_id": str(uid("operation")),
    "reason": "new rack",
    "before": {"armed": True, "name": "lab"},
    "after": {"armed": False, "name": "lab"},
    "data": {"name": "lab"},
    "at": at(2).isoformat(),
}


@pytest.fixture
def kept(desk: Desk) -> Desk:
    desk.has(host(), vm())
    desk.engine.on("GET", "/audit", {"items": [EVENT], "next_cursor": "c2", "total": None})
    return desk


def test_a_row_tells_who_did_what_why_and_what_it_changed(kept: Desk) -> None:
    result = kept.run("audit", "list")
    words = ("2026-11-22 07:00:02Z", "ann", "cluster.arm.done", "lab", "new rack")
    assert [word for word in words if word not in result.stdout] == []
    assert "armed: True → False" in result.stdout
    assert "name:" not in result.stdout, "what did not change is not shown"
    assert "more: --cursor c2" in result.stderr


def test_json_of_the_trail_is_what_the_api_answered(kept: Desk) -> None:
    page = json.loads(kept.run("audit", "list", "-o", "json").stdout)
    assert page["items"] == [EVENT]


def test_filters_are_passed_on_with_names_resolved_to_ids(kept: Desk) -> None:
    words = ["--vm", "db01", "--by", "ann", "--type", "vm.start.accepted", "--limit", "3"]
    words += ["--since", "2026-11-22T07:00+01:00", "--correlation", "chg-7", "--cursor", "c1"]
    kept.run("audit", "list", *words)
    assert dict(kept.engine.requests[-1].url.params) == {
        "entity_type": "vm",
        "entity_id": str(uid("db01")),
        "principal": "ann",
        "type": "vm.start.accepted",
        "correlation_id": "chg-7",
        "since": "2026-11-22T07:00:00+01:00",
        "limit": "3",
        "cursor": "c1",
    }


def test_an_event_is_about_one_object(kept: Desk) -> None:
    result = kept.run("audit", "list", "--vm", "db01", "--host", "h1")
    assert result.exit_code == Exit.USAGE
    assert "one of --vm --host --cluster --entity" in result.stderr
    result = kept.run("audit", "list", "--vm", "db01", "--entity", "network", str(uid("lan")))
    assert result.exit_code == Exit.USAGE


@pytest.mark.parametrize(
    "words",
    [("--vm", str(uid("deleted"))), ("--entity", "vm", str(uid("deleted")).upper())],
    ids=["by its noun", "by its type"],
)
def test_the_trail_of_what_is_not_there_any_more_is_found_by_its_id(
    kept: Desk, words: tuple[str, ...]
) -> None:
    result = kept.run("audit", "list", *words)
    assert (result.exit_code, "cluster.arm.done" in result.stdout) == (0, True)
    sent = dict(kept.engine.requests[-1].url.params)
    assert sent == {"entity_type": "vm", "entity_id": str(uid("deleted")), "limit": "100"}


def test_an_object_by_its_type_needs_an_id(kept: Desk) -> None:
    result = kept.run("audit", "list", "--entity", "affinity_group", "near")
    assert result.exit_code == Exit.USAGE


def test_a_time_is_read_as_utc_unless_it_says_otherwise() -> None:
    assert moment("2026-11-22T07:00") == datetime(2026, 11, 22, 7, tzinfo=UTC)
    assert moment("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("2026-11-22T07:00+01:00") == datetime(2026, 11, 22, 6, tzinfo=UTC)
    known = datetime(2026, 11, 22, tzinfo=UTC)
    assert moment(known) is known


def test_a_duration_as_a_time_is_that_long_ago() -> None:
    before = datetime.now(UTC)
    found = moment("2h")
    assert before - timedelta(hours=2) <= found <= datetime.now(UTC) - timedelta(hours=2)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "forever", "99999999d", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text)


def test_lists_of_vms_and_hosts_pass_their_filters_on(kept: Desk) -> None:
    kept.run("vm", "list", "--host", "h1", "--state", "up", "--contains", "db", "--protected")
    sent = dict(kept.engine.requests[-1].url.params)
    expected = {"host_id": str(uid("h1")), "state": "up", "name_contains": "db"}
    assert sent == expected | {"protected": "true", "limit": "500"}
    kept.run("host", "list", "--state", "down", "--contains", "h")
    sent = dict(kept.engine.requests[-1].url.params)
    assert sent == {"state": "down", "name_contains": "h", "limit": "500"}

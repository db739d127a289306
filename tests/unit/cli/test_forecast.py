"""`host forecast` tells what would hold everything up first, then each VM."""

import json

import pytest

from tests.unit.cli.fake_engine import Desk, Json, host, uid

pytestmark = pytest.mark.unit

REPORT = """\
If h1 died now (profile balanced):

VM    BACK ON  AFTER A POWER CUT  AFTER AN ISOLATION  BUDGET          GIVES WAY
db01  h2       5.00 s             21.0 s              10 s, exceeded  -
web   h3       6.00 s             22.0 s              -               spread
huge would wait: huge needs 4000 MiB; the largest gap on 2 usable hosts is 900 MiB
not protected, so they stay down: scratch
"""


def vm(name: str, on: str, after_s: float, **values: object) -> Json:
    return {
        "vm_id": str(uid(name)),
        "name": name,
        "host": on,
        "power_cut_s": after_s,
        "isolation_s": after_s + 16,
        "gave_way": [],
        "budget_s": None,
        "within_budget": None,
    } | values


def loss(**values: object) -> Json:
    why = "huge needs 4000 MiB; the largest gap on 2 usable hosts is 900 MiB"
    return {
        "host_id": str(uid("h1")),
        "host_name": "h1",
        "profile": "balanced",
        "armed": True,
        "blocks_on_power_loss": False,
        "hosts_left": 2,
        "back": [
            vm("db01", "h2", 5.0, budget_s=10, within_budget=False),
            vm("web", "h3", 6.0, gave_way=["spread"]),
        ],
        "waits": [{"vm_id": str(uid("huge")), "name": "huge", "why": why}],
        "stay_down": ["scratch"],
    } | values


@pytest.fixture
def asked(desk: Desk) -> Desk:
    desk.has(host())
    desk.engine.on("GET", f"/hosts/{uid('h1')}/forecast", loss())
    return desk


def test_a_forecast_reads_as_a_report(asked: Desk) -> None:
    assert asked.run("host", "forecast", "h1").stdout == REPORT


def test_what_holds_everything_up_is_told_first(asked: Desk) -> None:
    path = f"/hosts/{uid('h1')}/forecast"
    held = {"armed": False, "blocks_on_power_loss": True, "isolation_needs_approval": True}
    asked.engine.on("GET", path, loss(**held, hosts_left=0))
    lines = asked.run("host", "forecast", "h1").stdout.splitlines()
    assert lines[1:5] == [
        "  nothing happens by itself: the cluster is disarmed",
        "  after a loss of power nothing could prove it dead: everything waits for a person",
        "  after an isolation a person has to approve of the fence: so many silent hosts may be "
        "our own network",
        "  no other host is up",
    ]


def test_json_is_what_the_api_answered(asked: Desk) -> None:
    assert json.loads(asked.run("host", "forecast", "h1", "-o", "json").stdout) == loss()

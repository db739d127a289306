"""`incident stats` reads at a glance, and says when its percentiles mean little."""

import json

import pytest

from tests.unit.cli.fake_engine import Desk, Json, cluster, uid

pytestmark = pytest.mark.unit

REPORT = """\
3 closed incidents from 2026-10-23 07:00:00Z to 2026-11-22 07:00:00Z
  ended      2 recovered, 1 returned
  power cut  1 time
  VMs back   3 of 4; 1 did not come back through their incident
  in budget  1 of 3, 2 over; 1 had none

PHASE    N  P50     P90     P99     WORST   WHAT
detect   3  2.10 s  4.00 s  4.00 s  4.00 s  from the last answer to the report
decide   2  0.10 s  0.20 s  0.20 s  0.20 s  judge: is it dead, may its power be cut
prove    0  -       -       -       -       read the power as off
total    2  6.00 s  1 min 30 s  1 min 30 s  1 min 30 s  from the last answer to the end
each VM  3  5.00 s  12.0 s  12.0 s  12.0 s  from the last answer until it runs again
Percentiles of n=2 mean little: the high ones are single incidents. Look at each: holdfast \
incident list

Waited for
REASON       INCIDENTS  LONGEST
MANY_SILENT  2          1 min 10 s
"""


def spread(count: int, *ranks: float | None) -> Json:
    return {"count": count} | dict(zip(("p50_s", "p90_s", "p99_s", "worst_s"), ranks, strict=True))


def stats(**values: object) -> Json:
    vms = {"vms": 4, "back": 3, "not_back": 1, "within": 1, "over": 2, "without_budget": 1}
    return {
        "incidents": 3,
        "outcomes": {"recovered": 2, "returned": 1},
        "fences": 1,
        "phases": {
            "detect": spread(3, 2.1, 4.0, 4.0, 4.0),
            "decide": spread(2, 0.1, 0.2, 0.2, 0.2),
            "prove": spread(0, None, None, None, None),
        },
        "total": spread(2, 6.0, 90.0, 90.0, 90.0),
        "vms": spread(3, 5.0, 12.0, 12.0, 12.0),
        "budgets": vms,
        "waited": [{"code": "MANY_SILENT", "incidents": 2, "worst_s": 70.0}],
        "few": True,
        "since": "2026-10-23T07:00:00Z",
        "until": "2026-11-22T07:00:00Z",
        "cut_off": False,
    } | values


def test_stats_read_as_a_report(desk: Desk) -> None:
    desk.engine.on("GET", "/incidents/stats", stats())
    shown = desk.run("incident", "stats").stdout
    assert [line.split() for line in shown.splitlines()] == [
        line.split() for line in REPORT.splitlines()
    ]


def test_the_cluster_is_looked_up_and_the_time_is_passed_on(desk: Desk) -> None:
    desk.has(cluster("c1"))
    desk.engine.on("GET", "/incidents/stats", stats())
    desk.run("incident", "stats", "--cluster", "c1", "--since", "2026-11-01")
    asked = desk.engine.requests[-1].url.params
    assert asked["cluster_id"] == str(uid("c1"))
    assert asked["since"] == "2026-11-01T00:00:00+00:00"


def test_many_incidents_carry_no_warning_and_a_cut_off_is_told(desk: Desk) -> None:
    desk.engine.on("GET", "/incidents/stats", stats(few=False, cut_off=True, waited=[]))
    shown = desk.run("incident", "stats").stdout
    assert "mean little" not in shown
    assert "only the newest 3: there were more" in shown
    assert shown.endswith("Nothing was waited for\n")


def test_no_incident_is_one_line(desk: Desk) -> None:
    desk.engine.on("GET", "/incidents/stats", stats(incidents=0))
    shown = desk.run("incident", "stats").stdout
    assert shown == "0 closed incidents from 2026-10-23 07:00:00Z to 2026-11-22 07:00:00Z\n"


def test_budgets_that_nobody_set_say_how_to_set_one(desk: Desk) -> None:
    none = {"vms": 1, "back": 1, "not_back": 0, "within": 0, "over": 0, "without_budget": 1}
    desk.engine.on("GET", "/incidents/stats", stats(budgets=none))
    assert "no VM had a budget (`holdfast vm edit" in desk.run("incident", "stats").stdout


def test_json_is_what_the_api_said(desk: Desk) -> None:
    desk.engine.on("GET", "/incidents/stats", stats())
    assert json.loads(desk.run("incident", "stats", "-o", "json").stdout) == stats()

"""Invented scenarios, played: what each operation of the format does here."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from simulator.scenarios.format import Scenario
from simulator.scenarios.outcome import Outcome
from simulator.scenarios.report import as_json, details
from simulator.scenarios.run import run_scenario

pytestmark = pytest.mark.unit

HOSTS = ("north", "south", "west")
ON = [{"t": 5, "op": "host_power", "host": host, "on": True} for host in HOSTS]


def said(vms: dict[str, Any], *ops: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A scenario in which three hosts are switched on first."""
    hosts = {host: {"power": False, "network": False} for host in HOSTS}
    base = {"name": "invented", "hosts": hosts, "vms": vms, "end_s": 200}
    return base | {"timeline": [*ON, *ops]} | parts


def played(vms: dict[str, Any], *ops: dict[str, Any], **parts: Any) -> Outcome:
    outcome = run_scenario(Scenario.model_validate(said(vms, *ops, **parts)))
    assert outcome.violations == ()
    return outcome


def op(t: float, name: str, **given: Any) -> dict[str, Any]:
    return {"t": t, "op": name, **given}


def lacking(outcome: Outcome) -> set[str]:
    return {what.partition(":")[0] for what in outcome.unsupported}


ONE = {"vm:1": {"host": "west"}}


def test_a_power_cut_is_recovered_from_without_a_fence() -> None:
    found = played(ONE, op(30, "host_power", host="west", on=False))
    assert found.fenced == ()
    assert found.final_running["vm:1"] in ("north", "south")
    assert 0 < found.recovery_s["vm:1"] < 15
    (move,) = found.moves
    assert (move.source, move.kind, move.at_s) == ("west", "recover", 30 + found.recovery_s["vm:1"])


def test_a_host_that_is_cut_off_is_fenced_and_comes_back_when_it_is_switched_on() -> None:
    pin = {"kind": "node-affinity", "id": "pin", "resources": ["vm:1"], "nodes": {"west": 0}}
    cut = op(30, "host_network", host="west", on=False)
    found = played(ONE, cut, op(60, "host_power", host="west"), rules=[pin | {"strict": True}])
    assert found.fenced == ("west",)
    assert found.final_running == {"vm:1": "west"}
    assert found.moves == ()
    assert found.recovery_s["vm:1"] > 30


def test_a_link_that_is_back_in_time_changes_nothing() -> None:
    cut = op(30, "host_network", host="west", on=False)
    found = played(ONE, cut, op(32, "host_network", host="west", on=True))
    assert (found.fenced, found.moves, found.final_running) == ((), (), {"vm:1": "west"})


def test_a_shutdown_needs_no_fence() -> None:
    found = played(ONE, op(30, "host_planned_shutdown", host="west"))
    assert found.fenced == ()
    assert found.final_running["vm:1"] in ("north", "south")


def test_people_stop_start_move_and_add_vms() -> None:
    vms = {
        "vm:stays-down": {"host": "north", "wanted": "stopped"},
        "vm:stopped": {"host": "north"},
        "vm:moved": {"host": "north"},
        "vm:left-alone": {"host": "north", "wanted": "ignored"},
        "vm:started": {"host": "south", "wanted": "disabled"},
    }
    found = played(
        vms,
        op(30, "vm_set_wanted", vm="vm:stopped", wanted="stopped"),
        op(30, "vm_set_wanted", vm="vm:started", wanted="started"),
        op(30, "vm_relocate", vm="vm:moved", to="west"),
        op(30, "vm_load", vm="vm:moved", static=True, args=["maxcpu", "2", "maxmem", "2048"]),
        op(30, "vm_add", vm="vm:new", host="south", wanted="started", running=False),
    )
    assert found.final_running == {"vm:moved": "west", "vm:new": "south", "vm:started": "south"}
    assert [(move.vm, move.kind) for move in found.moves] == [("vm:moved", "relocate")]
    assert found.unsupported == ()


def test_a_vm_that_is_not_managed_any_more_is_not_recovered() -> None:
    cut = op(40, "host_power", host="west", on=False)
    found = played(ONE | {"vm:2": {"host": "west"}}, op(30, "vm_unmanage", vm="vm:1"), cut)
    assert list(found.final_running) == ["vm:2"]


def test_nothing_is_recovered_until_the_cluster_is_armed_again() -> None:
    found = played(
        ONE,
        op(30, "automation_disarm", host="north", mode="freeze"),
        op(32, "host_power", host="west", on=False),
        op(70, "automation_arm", host="north"),
    )
    assert found.recovery_s["vm:1"] > 38
    assert found.unsupported == ()


def test_a_start_that_is_refused_is_tried_on_another_host_as_the_peer_would() -> None:
    found = played({"fa:1": {"host": "west", "kind": "fa", "fault_digits": "1100"}})
    assert found.final_running == {"fa:1": "north"}
    assert lacking(found) == set()


def test_a_start_that_is_refused_more_often_than_it_may_be_tried_is_told() -> None:
    limits = {"max_restart": 0, "max_relocate": 0}
    found = played({"fa:1": {"host": "west", "kind": "fa", "fault_digits": "1900"} | limits})
    assert found.final_running == {}
    assert any("cannot be started here" in note for note in found.notes)


def test_a_vm_that_cannot_be_stopped_runs_on_and_its_stop_says_so() -> None:
    stop = op(30, "vm_set_wanted", vm="fa:1", wanted="disabled")
    found = played({"fa:1": {"host": "west", "kind": "fa", "fault_digits": "1001"}}, stop)
    assert (found.final_running, lacking(found)) == ({"fa:1": "west"}, set())
    assert any("was killed and is still there" in note for note in found.notes)


def test_a_pending_fence_is_brought_to_its_end() -> None:
    prior = {"node_status": {"west": "fence"}, "service_status": {"vm:1": {"state": "fence"}}}
    found = played(ONE, prior_state=prior)
    assert list(found.final_running) == ["vm:1"]
    assert found.recovery_s["vm:1"] > 5


def test_a_vm_that_a_rule_keeps_off_its_host_is_started_where_it_may_run() -> None:
    apart = {"kind": "resource-affinity", "id": "apart", "affinity": "negative"}
    vms = ONE | {"vm:2": {"host": "west"}}
    found = played(vms, rules=[apart | {"resources": ["vm:1", "vm:2"]}])
    assert len(set(found.final_running.values())) == 2
    assert [move.kind for move in found.moves] == ["relocate"]


def test_a_vm_is_moved_while_it_runs() -> None:
    found = played(ONE, op(30, "vm_migrate", vm="vm:1", to="north"))
    assert (found.final_running["vm:1"], lacking(found)) == ("north", set())
    assert [move.kind for move in found.moves] == ["migrate"]


def test_a_host_in_maintenance_is_empty_until_it_serves_again() -> None:
    away = op(30, "host_maintenance_on", host="west")
    found = played(ONE, away)
    assert found.final_running["vm:1"] in ("north", "south")
    assert (found.fenced, found.violations, lacking(found)) == ((), (), set())
    back = op(90, "host_maintenance_off", host="west")
    again = played(ONE, away, back, op(140, "vm_migrate", vm="vm:1", to="west"))
    assert again.final_running["vm:1"] == "west"


def test_what_is_not_known_or_not_there_is_named_and_the_rest_goes_on() -> None:
    found = played(
        ONE,
        op(30, "meteor", host="west"),
        op(30, "vm_migrate", vm="vm:1", to="nowhere"),
        op(30, "vm_set_wanted", vm="vm:9", wanted="stopped"),
        op(30, "host_power", host="north", on=True, voltage=110),
        op(31, "host_power", host="west", on=False),
    )
    named = {"op meteor", "op vm_migrate", "op vm_set_wanted", "op host_power.voltage"}
    assert lacking(found) == named
    assert found.final_running["vm:1"] in ("north", "south")


def test_the_same_scenario_twice_gives_the_same_result() -> None:
    cut = op(30, "host_network", host="west", on=False)
    scenario = Scenario.model_validate(said(ONE, cut))
    first, second = run_scenario(scenario), run_scenario(scenario)
    assert json.dumps(as_json(first)) == json.dumps(as_json(second))


def test_a_scenario_that_breaks_off_is_a_result_too() -> None:
    found = run_scenario(Scenario.model_validate(said({"vm:1": {"size": {"maxcpu": 9999}}})))
    assert found.levels["L0"] is False
    assert found.violations[0].startswith("defect: ")


def test_the_command_prints_json_and_says_everything_about_one(tmp_path: Path) -> None:
    file = tmp_path / "scenarios.json"
    file.write_text(json.dumps({"scenarios": [said({})]}))
    runner = CliRunner()
    answer = runner.invoke(app, ["simulate", "scenario", str(file), "--json", "--jobs", "1"])
    assert answer.exit_code == 0, answer.output
    (result,) = json.loads(answer.stdout)
    assert list(result) == [
        *("name", "violations", "fenced", "moves", "final_running", "recovery_s"),
        *("peer_recovery_s", "levels", "unsupported"),
    ]
    assert result["levels"] == {"L0": True, "L1": True, "L2": True, "L3": True}
    missing = runner.invoke(app, ["simulate", "scenario", str(file), "--name", "another"])
    assert missing.exit_code == 3


def test_details_tell_of_every_part_of_a_result() -> None:
    found = details(played(ONE, op(30, "host_network", host="west", on=False)))
    assert {name for name, _fact in found} >= {"L0", "L3", "fenced", "move", "runs", "recovery"}

"""What a scenario file says, what of it is not known, and what becomes of it here."""

import json
from pathlib import Path
from typing import Any

import pytest

from domain.errors import Invalid, NotFound
from simulator.scenarios.format import Scenario, read_file, scenarios_of
from simulator.scenarios.world import Group, Scene, scene_of

pytestmark = pytest.mark.unit

GIB = 1024**3


def scene(**parts: Any) -> Scene:
    """What is to be built for three hosts and whatever else is given."""
    hosts: dict[str, dict[str, Any]] = {name: {} for name in ("north", "south", "west")}
    return scene_of(Scenario.model_validate({"name": "invented", "hosts": hosts} | parts))


def kinds(found: Scene) -> set[str]:
    return {what.partition(":")[0] for what in found.unsupported}


def test_a_file_without_the_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scenarios.json"
    file.write_text(json.dumps({"format": "another/3", "scenarios": []}))
    with pytest.raises(Invalid, match="another/3"):
        read_file(file)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scenarios.json"
    file.write_text("{")
    with pytest.raises(Invalid, match="SCENARIO_FILE_UNREADABLE"):
        read_file(file)
    with pytest.raises(NotFound):
        read_file(tmp_path / "nowhere.json")


def test_one_scenario_alone_is_a_file_too() -> None:
    (found,) = scenarios_of({"name": "alone", "hosts": {"north": {}}})
    assert found.name == "alone"


def test_nothing_is_lacking_in_a_plain_scenario() -> None:
    assert scene(vms={"vm:1": {"host": "north"}}).unsupported == ()


def test_fields_that_nobody_knows_are_named() -> None:
    found = scene(weather="rain", vms={"vm:1": {"host": "north", "colour": "red"}})
    assert found.unsupported == ("scenario.weather", "vm.colour")


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"vms": {"ct:1": {"kind": "ct"}}}, "vm.kind=ct"),
        ({"vms": {"vm:1": {"load": {"cpu": 1}}}}, "vm.load"),
        ({"vms": {"vm:1": {"wanted": "floating"}}}, "vm.wanted=floating"),
        ({"policy": {"crs": {"ha": "static"}}}, "policy.crs.ha=static"),
        ({"policy": {"ha": {"shutdown_policy": "freeze"}}}, "policy.ha.shutdown_policy=freeze"),
        ({"groups": [{"name": "old"}]}, "groups"),
        ({"rules": [{"kind": "moon-phase", "id": "r"}]}, "rule moon-phase"),
        ({"prior_state": {"node_status": {"north": "gone"}}}, "prior_state.node_status=gone"),
        (
            {"prior_state": {"service_status": {"vm:1": {"state": "freeze"}}}},
            "prior_state.service_status=freeze",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(parts: dict[str, Any], kind: str) -> None:
    assert kind in kinds(scene(**parts))


def test_names_and_sizes_become_what_the_engine_takes() -> None:
    size = {"maxcpu": 0.5, "maxmem": 2 * GIB}
    found = scene(vms={"vm:1": {"size": size}, "VM_1": {"wanted": "ignored"}})
    assert [(vm.name, vm.memory_mib, vm.vcpus) for vm in found.setup.vms] == [
        ("vm-1", 2048, 1),
        ("vm-1-2", 1024, 1),
    ]
    assert [vm.protected for vm in found.setup.vms] == [True, False]


def test_each_better_level_of_hosts_is_a_soft_group_of_its_own() -> None:
    nodes = {"north": 1, "south": 2, "west": 1}
    rule = {"kind": "node-affinity", "id": "near", "resources": ["vm:1"], "nodes": nodes}
    found = scene(rules=[rule | {"strict": True}], vms={"vm:1": {}})
    assert found.groups == (
        Group("near-1", together=True, hard=False, vms=("vm:1",), hosts=("south",)),
        Group("near", together=True, hard=True, vms=("vm:1",), hosts=("north", "south", "west")),
    )


def test_a_host_rule_without_a_host_that_is_there_is_named() -> None:
    rule = {"kind": "node-affinity", "id": "far", "resources": ["vm:1"], "nodes": {"moon": 0}}
    found = scene(rules=[rule], vms={"vm:1": {}})
    assert found.groups == ()
    assert "rule node-affinity" in kinds(found)


def test_a_vm_whose_host_was_being_fenced_ran_there() -> None:
    prior = {"node_status": {"north": "fence"}, "service_status": {"vm:1": {"state": "fence"}}}
    found = scene(prior_state=prior, vms={"vm:1": {"host": "north"}})
    assert found.ran_before == ("vm:1",)
    assert found.setup.vms[0].host == "north"
    assert found.unsupported == ()

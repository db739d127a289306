"""The four levels as pure judgements: each of them can be missed, and says why."""

from typing import Any

import pytest

from simulator.scenarios.format import Rule, Scenario
from simulator.scenarios.verdict import broken_rules, judge

pytestmark = pytest.mark.unit

APART = {"kind": "resource-affinity", "id": "apart", "affinity": "negative"}
TOGETHER = {"kind": "resource-affinity", "id": "together", "affinity": "positive"}
PINNED = {"kind": "node-affinity", "id": "pinned", "strict": True, "nodes": {"north": 0}}


def why_not(happened: dict[str, Any], rules: tuple[dict[str, Any], ...] = ()) -> dict[str, str]:
    """The verdict where the peer fenced `north`, and `db` runs on `south` in the end."""
    scenario = Scenario.model_validate(
        {
            "name": "invented",
            "hosts": {"north": {}, "south": {}},
            "rules": rules,
            "oracle": {"hosts_fenced": [{"host": "north"}], "final_running": {"db": "south"}},
        }
    )
    right: dict[str, Any] = {"fenced": ["north"], "final_running": {"db": "south"}}
    return judge(scenario, **({"violations": []} | right | happened))


def rule(base: dict[str, Any], **changes: Any) -> Rule:
    return Rule.model_validate(base | {"resources": ("web", "db")} | changes)


def test_the_same_end_as_the_peers_reaches_every_level() -> None:
    assert set(why_not({}).values()) == {""}


def test_a_violation_misses_only_the_first_level() -> None:
    found = why_not({"violations": ["one_copy: db runs on north and south"]})
    assert found == {"L0": "one_copy: db runs on north and south", "L1": "", "L2": "", "L3": ""}


def test_a_vm_that_does_not_run_is_named() -> None:
    assert why_not({"final_running": {}})["L1"] == "db does not run here"


def test_a_vm_that_runs_and_is_not_wanted_is_named() -> None:
    found = why_not({"final_running": {"db": "south", "web": "south"}})
    assert found["L1"] == "web runs here only"


def test_another_place_for_the_same_vm_is_the_same_running_set() -> None:
    assert why_not({"final_running": {"db": "north"}})["L1"] == ""


@pytest.mark.parametrize(
    ("fenced", "why"),
    [
        ([], "north was not fenced here"),
        (["north", "south"], "south was fenced here only"),
    ],
)
def test_other_fences_than_the_peers_miss_the_second_level(fenced: list[str], why: str) -> None:
    assert why_not({"fenced": fenced})["L2"] == why


def test_a_placement_against_a_rule_misses_the_third_level() -> None:
    found = why_not({}, (PINNED | {"resources": ("db",)},))
    assert found["L3"] == "pinned: db on south"


def test_a_soft_host_rule_forbids_nothing() -> None:
    assert broken_rules([rule(PINNED, strict=False)], {"web": "south", "db": "south"}) == []


def test_vms_that_are_to_be_apart_share_no_host() -> None:
    assert broken_rules([rule(APART)], {"web": "north", "db": "south"}) == []
    assert broken_rules([rule(APART)], {"web": "north", "db": "north"}) == [
        "apart: web on north, db on north"
    ]


def test_vms_that_are_to_be_together_share_one() -> None:
    assert broken_rules([rule(TOGETHER)], {"web": "north", "db": "north"}) == []
    assert broken_rules([rule(TOGETHER)], {"web": "north", "db": "south"}) == [
        "together: web on north, db on south"
    ]


def test_a_vm_that_does_not_run_breaks_no_rule() -> None:
    assert broken_rules([rule(TOGETHER), rule(APART)], {"web": "north"}) == []

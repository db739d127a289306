"""What seeds bring beside their patterns: homes and rehearsals, each from a stream of its own."""

import pytest

from domain.failback import Failback
from simulator.faults.draw import plan_of
from simulator.faults.menu import MENU
from simulator.faults.plan import Fault
from simulator.seeds import setup_of
from simulator.setup import SOON_S, Setup
from tests.simulator.scene import scene

pytestmark = pytest.mark.unit

SEEDS = range(200)


def test_some_seeds_have_homes_and_some_rehearse_and_all_their_faults_are_known() -> None:
    plans = {seed: plan_of(seed, setup_of(seed)) for seed in SEEDS}
    homes = [seed for seed in SEEDS if any(vm.goes_home for vm in setup_of(seed).vms)]
    kinds = {seed: [fault.kind for fault in plan.faults] for seed, plan in plans.items()}
    rehearses = [seed for seed in SEEDS if "person.rehearse" in kinds[seed]]
    assert 5 < len(homes) < 40
    assert 5 < len(rehearses) < 40
    assert all("person.looks_after" in kinds[seed] for seed in homes)
    assert {kind for each in kinds.values() for kind in each} <= set(MENU)


def test_a_seed_that_has_neither_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {seed: plan_of(seed, setup_of(seed)) for seed in SEEDS}
    setups = {seed: setup_of(seed) for seed in SEEDS}
    monkeypatch.setattr("simulator.seeds.HOMES", 0.0)
    monkeypatch.setattr("simulator.faults.asides.REHEARSED", 0.0)
    for seed in SEEDS:
        before, after = plan_of(seed, setup_of(seed)), drawn[seed]
        assert after.faults[: len(before.faults)] == before.faults
        assert (before.pattern, before.machines) == (after.pattern, after.machines)
        if after.faults == before.faults:
            assert (before, setup_of(seed)) == (after, setups[seed])


def test_the_vms_of_such_a_seed_go_home_while_it_runs() -> None:
    with scene(setup=Setup.small().with_homes()) as on:
        on.start()
        vms = on.stage.rows.table("vm")
        assert {vm["failback"] for vm in vms} == {Failback.AUTO}
        on.inject(
            Fault(kind="host.power_cut", at_s=1.0, subject="h1", lasts_s=20.0),
            Fault(kind="person.looks_after", at_s=20.0),
        )
        on.passes(60.0 + SOON_S)
        homes = [op for op in on.stage.rows.table("operation") if op["reason"] == "failback"]
        assert homes
        assert on.watch.violations == []

"""A host loses its power and comes back: its VM is at home in the end, and never ran twice."""

import pytest

from engine.actions.clusters import EditCluster
from engine.actions.hosts import ActivateHost
from engine.actions.vm_config import EditVm
from simulator.rows import OPEN
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def on_host(on: Scene, name: str) -> str | None:
    """Where a VM runs in the world, if that is one place."""
    copies = on.stage.centre.copies(on.vm(name)["id"])
    return copies[0] if len(copies) == 1 else None


def one_on(on: Scene, host: str) -> str:
    """The name of a VM that runs on a host."""
    names = [str(vm["name"]) for vm in on.stage.rows.table("vm")]
    return next(name for name in names if on_host(on, name) == host)


def moves(on: Scene) -> list[dict[str, object]]:
    return on.stage.rows.table("operation", "kind = ?", "vm.migrate")


def test_a_vm_goes_home_once_after_its_home_has_served_for_ten_minutes() -> None:
    with scene() as on:
        on.start()
        on.passes(20.0)
        home = on.stage.rows.find("host", "h1")
        name = next(
            vm["name"] for vm in on.stage.rows.table("vm") if on_host(on, vm["name"]) == "h1"
        )
        vm_id = on.vm(name)["id"]
        on.does(on.stage.done(EditVm(vm_id=vm_id, home_id=home["id"], failback="auto")))
        on.h1.lose_power()
        on.until(lambda: on_host(on, name) not in (None, "h1"), 300.0)
        on.h1.get_power()
        on.passes(60.0)
        on.does(on.stage.done(ActivateHost(host_id=home["id"])))
        on.passes(500.0)
        assert moves(on) == []
        on.until(lambda: on_host(on, name) == "h1", 300.0)
        on.passes(700.0)
        assert len(moves(on)) == 1
        assert [op for op in on.stage.rows.table("operation") if op["state"] in OPEN] == []
        assert on.stage.centre.copies_max[vm_id] == 1
        assert on.watch.violations == []
        assert on.caught == []


def test_a_cluster_may_be_more_patient() -> None:
    with scene() as on:
        on.start()
        on.passes(20.0)
        cluster = on.stage.rows.find("cluster", "c1")
        home = on.stage.rows.find("host", "h2")
        on.does(on.stage.done(EditCluster(cluster_id=cluster["id"], failback_after_s=3000)))
        name = next(
            vm["name"] for vm in on.stage.rows.table("vm") if on_host(on, vm["name"]) == "h1"
        )
        edit = EditVm(vm_id=on.vm(name)["id"], home_id=home["id"], failback="auto")
        on.does(on.stage.done(edit))
        on.passes(1500.0)
        assert moves(on) == []
        on.does(on.stage.done(EditCluster(cluster_id=cluster["id"], failback_after_s=60)))
        on.until(lambda: on_host(on, name) == "h2", 120.0)
        assert on.watch.violations == []

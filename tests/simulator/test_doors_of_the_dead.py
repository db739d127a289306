"""A host that is held to be dead, and whose libvirtd says nothing: only its door can tell."""

import pytest

from simulator.faults.plan import Fault
from simulator.world.host import Bmc, Libvirtd
from tests.simulator.families import FAST, cut_off
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def fault(kind: str, **more: float) -> Fault:
    return Fault(kind=kind, at_s=0, subject="h1", **more)


def certificates(world: Scene) -> list[str]:
    return [row["state"] for row in world.stage.rows.table("death_certificate")]


def state(world: Scene) -> str:
    found: str = world.stage.rows.find("host", "h1")["state"]
    return found


def test_a_lie_is_found_out_at_the_door_when_the_network_heals_and_libvirtd_hangs() -> None:
    with scene(FAST) as world:
        world.start()
        world.inject(fault("bmc.lying"), cut_off("h1", 0, 20.0))
        world.until(lambda: certificates(world) == ["valid"], limit_s=15.0)
        world.inject(fault("host.libvirtd_hung"))
        world.until(lambda: certificates(world) == ["void"], limit_s=30.0)
        (row,) = world.stage.rows.table("death_certificate")
        assert "h1 takes connections at" in row["void_reason"]
        assert state(world) == "non_operational"
        assert [v for v in world.watch.violations if v.outside is None] == []


@pytest.mark.parametrize("libvirtd", [Libvirtd.HUNG, Libvirtd.DOWN])
@pytest.mark.parametrize("bmc", [Bmc.OK, Bmc.DEAD, Bmc.HANGING, Bmc.SLOW])
def test_a_machine_that_somebody_has_switched_on_again_leaves_its_certificate_true(
    libvirtd: Libvirtd, bmc: Bmc
) -> None:
    with scene(FAST) as world:
        world.start()
        world.h1.lose_power()
        world.until(lambda: certificates(world) == ["valid"], limit_s=30.0)
        world.h1.bmc = bmc
        world.h1.get_power()
        world.h1.set_libvirtd(libvirtd)
        world.passes(200.0)
        assert (certificates(world), state(world)) == (["valid"], "down")
        assert world.watch.violations == []

"""A libvirtd that hangs for five minutes while kernel and guests live, in each profile."""

import pytest

from domain.profiles import Profile
from simulator.faults.plan import Fault
from simulator.setup import Setup
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit
FIVE_MINUTES_S = 300.0


def states(world: Scene) -> list[str]:
    return [row["state"] for row in world.stage.rows.table("host") if row["name"] == "h1"]


@pytest.mark.parametrize("profile", Profile)
def test_a_hung_libvirtd_alone_leads_to_no_fence_and_moves_nothing(profile: Profile) -> None:
    with scene(Setup.small(profile=profile)) as world:
        world.start()
        before = world.stage.rows.table("vm_run")
        world.inject(Fault(kind="host.libvirtd_hung", at_s=0, subject="h1", lasts_s=FIVE_MINUTES_S))
        world.passes(FIVE_MINUTES_S)
        assert states(world) != ["up"], "the hang was not even noticed"
        assert world.stage.centre.powered_off == []
        assert world.stage.rows.table("death_certificate") == []
        world.until(lambda: states(world) == ["up"], limit_s=120.0)
        assert world.stage.rows.table("vm_run") == before
        assert world.stage.rows.table("fence_claim") == []
        assert world.watch.violations == []

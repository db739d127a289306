"""A host reboots, and what took its guests away is read once only: they are started again."""

import pytest

from domain.errors import NoAnswer
from simulator.faults.plan import Fault
from simulator.setup import Setup
from store.left_down import FOUND_GONE, LEFT_DOWN
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def ended(world: Scene) -> list[str]:
    """Why runs have ended whose guest was found gone."""
    reasons = [run["end_reason"] for run in world.stage.rows.table("vm_run")]
    return [why for why in reasons if why in (FOUND_GONE, LEFT_DOWN)]


def test_a_guest_that_a_reboot_took_is_started_though_its_host_is_mute_once_it_was_read() -> None:
    with scene(Setup.small(hosts=2, vms=2)) as world:
        world.start()
        asked: list[str] = []

        async def mute() -> None:
            if ended(world) and len(asked) < 2:
                asked.append(world.stage.rows.find("host", "h1")["state"])
                raise NoAnswer("HOST_SILENT", "h1 did not answer", host="h1")

        world.stage.centre.before["poll"] = mute
        world.inject(Fault(kind="host.reboot", at_s=0, subject="h1", args={"boot_s": 0.5}))
        world.until(lambda: bool(ended(world)), limit_s=300.0)
        vm_id = world.vm("vm1")["id"]
        world.until(lambda: len(world.stage.centre.copies(vm_id)) == 1, limit_s=300.0)
        assert asked[0] == "reconciling", "it was the step that reconciles whose answer was lost"
        assert (world.watch.violations, world.caught) == ([], [])

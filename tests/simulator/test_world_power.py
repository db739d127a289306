"""Hosts and their power controllers, as the virtual data centre plays them."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from activities.waiting import until
from domain.errors import NoAnswer
from domain.inventory import FenceDevice, PowerReading
from domain.readings import Knock
from simulator.loop import CURRENT, Process
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc, VirtualDomain, VirtualHost
from simulator.world.hypervisor import VirtualHypervisor
from simulator.world.latency import Call, Latency
from simulator.world.network import Net
from simulator.world.power import SLOW_READINGS, VirtualPower

pytestmark = pytest.mark.unit

DEADLINE_S = 0.5


def device(host: str = "h1", name: str = "") -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name=name or f"bmc-{host}",
        agent="fence_fake",
        options={},
        deadline_s=DEADLINE_S,
    )


class Scene:
    """One host with one guest, and whatever was told."""

    def __init__(self, latency: Latency | None = None) -> None:
        self.centre = DataCentre(latency=latency)
        self.host: VirtualHost = self.centre.add("h1")
        self.power = VirtualPower(self.centre)
        self.vm_id = uuid4()
        self.centre.run(self.host, self.vm_id, VirtualDomain("db", 128, 1))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.centre.happenings.observers.append(lambda kind, facts: self.told.append((kind, facts)))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _facts in self.told]

    async def refused(self, act: str) -> str:
        with pytest.raises(NoAnswer) as caught:
            await getattr(self.power, act)(device())
        return caught.value.code


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def soon(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    assert await until(holds, every_s=0.001, within_s=30.0)


def mark_of(host: VirtualHost) -> int | None:
    return host.mark


async def test_off_ends_every_process_and_reads_back_as_off(scene: Scene) -> None:
    scene.host.mark = 7
    await scene.power.off(device())
    assert await scene.power.read(device()) is PowerReading.OFF
    assert (scene.centre.copies(scene.vm_id), mark_of(scene.host)) == ([], None)
    assert list(scene.host.domains) == [scene.vm_id], "what was defined stays"
    assert scene.centre.powered_off == ["h1"]


async def test_observers_hear_of_a_cut_in_the_order_in_which_it_happened(scene: Scene) -> None:
    await scene.power.off(device())
    await scene.power.read(device())
    assert scene.kinds == ["bmc.command", "host.power_lost", "guest.ended", "bmc.read"]
    assert scene.told[1][1] == {"host": "h1", "boot": 1, "by": "bmc-h1"}
    assert scene.told[2][1]["vm_id"] == scene.vm_id
    assert scene.told[3][1]["answer"] is PowerReading.OFF


async def test_power_on_is_a_new_boot_in_which_nothing_runs(scene: Scene) -> None:
    await scene.power.off(device())
    await scene.power.on(device())
    assert (scene.host.boot, scene.host.answers) == (2, True)
    assert scene.centre.copies(scene.vm_id) == []
    assert scene.kinds[-3:] == ["bmc.command", "host.power_on", "host.ready"]


async def test_a_booting_host_is_silent_until_its_libvirtd_answers(scene: Scene) -> None:
    scene.host.boot_s = 0.01
    scene.host.lose_power()
    scene.host.get_power()
    hypervisor = VirtualHypervisor(scene.centre)
    assert await hypervisor.knock(scene.host.uri, 1.0) is Knock.SILENT
    assert await scene.power.read(device()) is PowerReading.ON
    await soon(lambda: scene.host.answers)
    assert await hypervisor.knock(scene.host.uri, 1.0) is Knock.ANSWERS


async def test_the_end_of_a_boot_that_was_cut_short_does_not_wake_the_next_one(
    scene: Scene,
) -> None:
    scene.host.lose_power()
    scene.host.boot_s = 0.005
    scene.host.get_power()
    scene.host.lose_power()
    scene.host.boot_s = 60.0
    scene.host.get_power()
    await asyncio.sleep(0.02)
    assert scene.host.booting
    assert "host.ready" not in scene.kinds


async def test_a_reboot_takes_mark_and_processes_without_a_loss_of_power(scene: Scene) -> None:
    scene.host.mark = 3
    scene.host.reboot()
    assert (mark_of(scene.host), scene.host.boot, scene.host.powered) == (None, 2, True)
    assert scene.centre.copies(scene.vm_id) == []
    assert "host.power_lost" not in scene.kinds


async def test_a_host_that_is_off_does_not_reboot(scene: Scene) -> None:
    scene.host.lose_power()
    scene.host.reboot()
    assert (scene.host.powered, scene.host.boot) == (False, 1)


@pytest.mark.parametrize("mode", [Bmc.DEAD, Bmc.HANGING])
async def test_a_controller_without_an_answer_reads_unknown_and_cuts_nothing(
    scene: Scene, mode: Bmc
) -> None:
    scene.host.bmc = mode
    assert await scene.power.read(device()) is PowerReading.UNKNOWN
    assert await scene.refused("off") == "BMC_NO_ANSWER"
    assert (scene.host.powered, scene.centre.powered_off) == (True, [])


async def test_a_hanging_controller_uses_up_the_deadline(scene: Scene) -> None:
    scene.host.bmc = Bmc.HANGING
    clock = asyncio.get_running_loop().time
    began = clock()
    await scene.power.read(device())
    assert clock() - began >= DEADLINE_S * 0.9


async def test_a_controller_that_shares_the_supply_is_dead_after_a_power_cut(scene: Scene) -> None:
    scene.host.bmc = Bmc.DEAD_WITH_HOST
    scene.host.lose_power()
    assert await scene.power.read(device()) is PowerReading.UNKNOWN
    assert await scene.refused("on") == "BMC_NO_ANSWER"
    scene.host.get_power()
    assert await scene.power.read(device()) is PowerReading.ON


async def test_a_controller_that_shares_the_supply_lives_on_when_it_cuts_the_host_itself(
    scene: Scene,
) -> None:
    scene.host.bmc = Bmc.DEAD_WITH_HOST
    await scene.power.off(device())
    assert await scene.power.read(device()) is PowerReading.OFF


async def test_a_lying_controller_reads_off_while_the_guests_run_on(scene: Scene) -> None:
    scene.host.bmc = Bmc.LYING
    await scene.power.off(device())
    assert await scene.power.read(device()) is PowerReading.OFF
    assert scene.centre.copies(scene.vm_id) == ["h1"]
    assert ("bmc.lied" in scene.kinds, scene.centre.powered_off) == (True, ["h1"])


async def test_a_slow_controller_cuts_after_some_readings(scene: Scene) -> None:
    scene.host.bmc = Bmc.SLOW
    await scene.power.off(device())
    readings = [await scene.power.read(device()) for _ in range(SLOW_READINGS)]
    assert readings == [PowerReading.ON] * (SLOW_READINGS - 1) + [PowerReading.OFF]


async def test_a_controller_that_needs_seconds_cuts_without_being_read(scene: Scene) -> None:
    scene.host.bmc, scene.host.cut_s = Bmc.SLOW_S, 0.005
    await scene.power.off(device())
    assert await scene.power.read(device()) is PowerReading.ON
    await soon(lambda: not scene.host.powered)
    assert scene.centre.copies(scene.vm_id) == []


async def test_what_was_planned_belongs_to_no_process_of_the_engine(scene: Scene) -> None:
    engine = Process("an engine that may be killed", "engine-1")
    seen: list[Process | None] = []
    scene.centre.happenings.observers.append(lambda _kind, _facts: seen.append(CURRENT.get()))
    CURRENT.set(engine)
    scene.host.bmc, scene.host.cut_s = Bmc.SLOW_S, 0.005
    await scene.power.off(device())
    await soon(lambda: not scene.host.powered)
    assert seen == [engine, None, None]


async def test_a_late_cut_does_not_hit_the_next_boot(scene: Scene) -> None:
    scene.host.bmc, scene.host.cut_s = Bmc.SLOW_S, 0.005
    await scene.power.off(device())
    scene.host.reboot()
    await asyncio.sleep(0.02)
    assert scene.host.powered


async def test_a_wrong_password_reads_unknown_and_is_refused(scene: Scene) -> None:
    scene.host.bmc = Bmc.WRONG_PASSWORD
    assert await scene.power.read(device()) is PowerReading.UNKNOWN
    assert [await scene.refused(act) for act in ("off", "on")] == ["FENCE_AGENT_FAILED"] * 2
    assert scene.host.powered


async def test_already_off_may_be_an_error_and_still_reads_off(scene: Scene) -> None:
    scene.host.bmc = Bmc.ALREADY_OFF_ERROR
    await scene.power.off(device())
    assert await scene.refused("off") == "FENCE_AGENT_FAILED"
    assert await scene.power.read(device()) is PowerReading.OFF
    assert scene.centre.powered_off == ["h1"]


async def test_two_controllers_of_one_host_may_differ(scene: Scene) -> None:
    scene.host.bmcs["bmc-h1-2"] = Bmc.DEAD
    readings = [await scene.power.read(device(name=f"bmc-h1-{n}")) for n in (1, 2)]
    assert readings == [PowerReading.ON, PowerReading.UNKNOWN]


async def test_a_device_is_found_by_its_host_even_when_that_name_has_hyphens() -> None:
    centre = DataCentre()
    far = centre.add("rack-2-h1")
    names = ("bmc-rack-2-h1", "bmc-rack-2-h1-2")
    assert [centre.host_of(device(name=name)) for name in names] == [far, far]


async def test_a_lost_request_to_a_controller_cuts_nothing(scene: Scene) -> None:
    scene.centre.networks[Net.BMC].cut("engine-1", "bmc-h1")
    assert await scene.refused("off") == "BMC_NO_ANSWER"
    assert scene.host.powered


async def test_a_lost_answer_of_a_controller_hides_that_the_power_is_cut(scene: Scene) -> None:
    scene.centre.networks[Net.BMC].cut("bmc-h1", "engine-1")
    assert await scene.refused("off") == "BMC_NO_ANSWER"
    assert await scene.power.read(device()) is PowerReading.UNKNOWN
    assert not scene.host.powered
    other = VirtualPower(scene.centre, "engine-2")
    assert await other.read(device()) is PowerReading.OFF


async def test_a_rack_loses_its_supply_as_a_whole_and_no_other() -> None:
    centre = DataCentre()
    for name, rack in (("h1", "a"), ("h2", "a"), ("h3", "b")):
        centre.add(name, rack=rack)
    centre.lose_rack("a")
    assert [host.powered for host in centre.hosts.values()] == [False, False, True]
    centre.power_rack("a")
    assert [host.boot for host in centre.hosts.values()] == [2, 2, 1]


async def test_a_command_that_was_given_up_may_still_cut_the_power() -> None:
    slow = Latency(Random(1), {Call.BMC_OFF: (3.0, 3.0)})
    scene = Scene(slow)
    assert await scene.refused("off") == "BMC_NO_ANSWER"
    assert scene.host.powered
    await soon(lambda: not scene.host.powered)


async def test_a_dead_controller_costs_the_whole_deadline_where_calls_take_time() -> None:
    scene = Scene(Latency(Random(1)))
    scene.host.bmc = Bmc.DEAD
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await scene.power.read(device()) is PowerReading.UNKNOWN
    assert clock() - began >= DEADLINE_S * 0.9

"""Guests, their copies, storage, and people who go past the engine."""

import asyncio
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from activities.waiting import until
from domain.errors import Conflict, Superseded
from domain.inventory import FenceDevice, GuestSpec, VirtType
from domain.readings import AgentState, DomainState
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc, Libvirtd, VirtualDomain, VirtualHost
from simulator.world.hypervisor import VirtualHypervisor, VirtualSession
from simulator.world.latency import Call, Latency
from simulator.world.network import Net
from simulator.world.power import VirtualPower
from simulator.world.storage import StorageState

pytestmark = pytest.mark.unit

VM = UUID(int=1)
SPEC = GuestSpec(vm_id=VM, name="db", memory_mib=128, vcpus=1, virt_type=VirtType.KVM)


class Scene:
    """Two hosts, and whatever was told."""

    def __init__(self, latency: Latency | None = None) -> None:
        self.centre = DataCentre(latency=latency, random=Random(1))
        self.h1, self.h2 = self.centre.add("h1"), self.centre.add("h2")
        self.hypervisor = VirtualHypervisor(self.centre)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.centre.happenings.observers.append(lambda kind, facts: self.told.append((kind, facts)))

    def facts(self, kind: str) -> list[dict[str, Any]]:
        return [facts for told, facts in self.told if told == kind]

    async def start(self, host: VirtualHost, generation: int = 1) -> VirtualSession:
        async with self.hypervisor.session(host.uri, 1.0) as session:
            await session.define(SPEC, generation)
            await session.create(VM, generation)
            return session

    async def refused(self, host: VirtualHost) -> str:
        with pytest.raises(Conflict) as caught:
            await self.start(host)
        return caught.value.code


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_the_life_of_a_guest_is_told_and_counted(scene: Scene) -> None:
    session = await scene.start(scene.h1)
    await session.destroy(VM, 1)
    await session.undefine(VM, 1)
    kinds = [kind for kind, _facts in scene.told]
    assert kinds == ["guest.defined", "guest.started", "guest.ended", "guest.undefined"]
    assert scene.facts("guest.started")[0]["copies"] == ("h1",)
    assert scene.facts("guest.ended")[0]["why"] == "destroyed"
    assert scene.centre.copies_max[VM] == 1


async def test_a_poll_tells_what_starts_at_boot_and_carries_our_mark(scene: Scene) -> None:
    await scene.start(scene.h1)
    foreign = VirtualDomain("theirs", 64, None, autostart=True)
    scene.h1.domains[UUID(int=2)] = foreign
    assert (await scene.hypervisor.poll(scene.h1.uri, 1.0)).autostart == ()
    scene.h1.domains[VM].autostart = True
    assert (await scene.hypervisor.poll(scene.h1.uri, 1.0)).autostart == ("db",)


async def test_a_second_copy_is_counted_though_nobody_can_reach_the_first(scene: Scene) -> None:
    await scene.start(scene.h1)
    scene.h1.reachable = False
    await scene.start(scene.h2, 2)
    (double,) = scene.centre.doubles
    assert (double.hosts, double.outside) == (("h1", "h2"), None)
    assert scene.centre.copies_max[VM] == 2
    assert scene.centre.outside == []


async def test_a_poll_shows_what_runs_and_what_is_left(scene: Scene) -> None:
    session = await scene.start(scene.h1)
    scene.centre.add_foreign(scene.h1, "idle", running=False)
    reading = await scene.hypervisor.poll(scene.h1.uri, 1.0)
    assert [guest.name for guest in reading.guests] == ["db"]
    assert (reading.memory_total_mib, reading.memory_free_mib) == (1024, 1024 - 128)
    await session.destroy(VM, 1)
    assert (await scene.hypervisor.poll(scene.h1.uri, 1.0)).memory_free_mib == 1024


async def test_an_older_epoch_cannot_replace_the_mark_of_a_boot(scene: Scene) -> None:
    async with scene.hypervisor.session(scene.h1.uri, 1.0) as session:
        await session.set_boot_mark(4)
        with pytest.raises(Superseded, match="EPOCH_STALE"):
            await session.set_boot_mark(3)
        assert await session.boot_mark() == 4
    assert scene.facts("host.marked") == [{"host": "h1", "boot": 1, "epoch": 4}]


async def test_the_agent_answers_in_a_guest_that_runs_and_is_silent_in_one_that_hangs(
    scene: Scene,
) -> None:
    async def said() -> AgentState:
        async with scene.hypervisor.session(scene.h1.uri, 1.0) as session:
            return await session.ask_agent(VM)

    assert await said() is AgentState.ABSENT
    await scene.start(scene.h1)
    assert await said() is AgentState.ANSWERS
    scene.h1.hang(VM)
    assert await said() is AgentState.SILENT
    scene.h1.end(VM, "crashed")
    assert await said() is AgentState.ABSENT


async def test_a_guest_takes_its_time_to_end_where_things_take_time() -> None:
    quick = {call: (0.0, 0.0) for call in Call}
    scene = Scene(Latency(Random(1), quick, (1.0, 1.0)))
    session = await scene.start(scene.h1)
    await session.shutdown(VM, 1)
    assert scene.centre.copies(VM) == ["h1"]

    async def ended() -> bool:
        return not scene.centre.copies(VM)

    assert await until(ended, every_s=0.001, within_s=30.0)


async def test_the_power_button_of_an_earlier_process_does_not_end_the_next_one() -> None:
    quick = {call: (0.0, 0.0) for call in Call}
    scene = Scene(Latency(Random(1), quick, (0.01, 0.01)))
    session = await scene.start(scene.h1)
    await session.shutdown(VM, 1)
    await session.destroy(VM, 1)
    await session.create(VM, 1)
    await asyncio.sleep(0.03)
    assert scene.centre.copies(VM) == ["h1"]


@pytest.mark.parametrize("state", [StorageState.GONE, StorageState.READ_ONLY])
async def test_nothing_starts_without_its_storage(scene: Scene, state: StorageState) -> None:
    scene.centre.set_storage(state)
    assert await scene.refused(scene.h1) == "LIBVIRT_REFUSED"
    assert scene.centre.copies(VM) == []
    scene.centre.set_storage(StorageState.OK)
    await scene.start(scene.h1)
    assert [facts["state"] for facts in scene.facts("storage.changed")] == [state, "ok"]


async def test_nothing_starts_on_a_host_that_is_cut_off_from_storage(scene: Scene) -> None:
    scene.centre.networks[Net.STORAGE].cut("storage", "h1")
    assert await scene.refused(scene.h1) == "LIBVIRT_REFUSED"
    await scene.start(scene.h2)


async def test_a_lease_is_written_where_host_and_storage_reach_each_other(scene: Scene) -> None:
    centre, leases = scene.centre, scene.centre.storage.leases
    assert centre.write_lease(scene.h1)
    now_s = asyncio.get_running_loop().time()
    assert 0 <= (leases.age_s("h1", now_s) or 0.0) < 5
    assert leases.age_s("h2", now_s) is None


async def test_a_lease_whose_answer_is_lost_is_written_all_the_same(scene: Scene) -> None:
    scene.centre.networks[Net.STORAGE].cut("storage", "h1")
    assert not scene.centre.write_lease(scene.h1)
    assert scene.centre.storage.leases.written_s("h1") is not None


async def test_no_lease_is_written_without_power_link_or_writable_storage(scene: Scene) -> None:
    scene.h1.lose_power()
    scene.centre.networks[Net.STORAGE].cut("h2", "storage")
    h3 = scene.centre.add("h3")
    scene.centre.set_storage(StorageState.READ_ONLY)
    assert [scene.centre.write_lease(host) for host in (scene.h1, scene.h2, h3)] == [False] * 3
    scene.centre.set_storage(StorageState.OK)
    assert [scene.centre.write_lease(host) for host in (scene.h1, scene.h2, h3)] == [
        *(False, False, True)
    ]


async def test_a_start_by_hand_is_outside_of_the_promise(scene: Scene) -> None:
    session = await scene.start(scene.h1)
    await session.destroy(VM, 1)
    assert scene.centre.start_by_hand(scene.h1, VM)
    assert scene.centre.outside == ["db was started on h1 by hand"]
    assert scene.facts("guest.started")[-1]["by_hand"] is True
    await scene.start(scene.h2)
    assert [double.outside for double in scene.centre.doubles] == ["db was started on h1 by hand"]


async def test_a_copy_by_hand_is_a_second_copy_outside_of_the_promise(scene: Scene) -> None:
    await scene.start(scene.h1)
    assert scene.centre.copy_by_hand(scene.h1, scene.h2, VM)
    assert scene.centre.copies(VM) == ["h1", "h2"]
    assert scene.h1.domains[VM].by_hand is False
    assert [double.outside for double in scene.centre.doubles] == ["db was started on h2 by hand"]


async def test_what_a_hand_takes_away_is_inside_of_the_promise(scene: Scene) -> None:
    await scene.start(scene.h1)
    assert not scene.centre.undefine_by_hand(scene.h1, VM), "it runs"
    assert scene.centre.destroy_by_hand(scene.h1, VM)
    assert scene.centre.undefine_by_hand(scene.h1, VM)
    assert (scene.h1.domains, scene.centre.outside) == ({}, [])


@pytest.mark.parametrize("how", ["off", "hung", "running", "unknown"])
async def test_a_hand_cannot_start_what_cannot_be_started(scene: Scene, how: str) -> None:
    if how != "unknown":
        scene.h1.domains[VM] = VirtualDomain("db", 128, 1)
    if how == "off":
        scene.h1.lose_power()
    elif how == "hung":
        scene.h1.set_libvirtd(Libvirtd.HUNG)
    elif how == "running":
        scene.centre.run(scene.h1, VM, scene.h1.domains[VM])
    before = scene.centre.copies(VM)
    assert not scene.centre.start_by_hand(scene.h1, VM)
    assert (scene.centre.copies(VM), scene.centre.outside) == (before, [])


def device() -> FenceDevice:
    return FenceDevice(
        id=uuid4(), host_id=uuid4(), name="bmc-h1", agent="fence_fake", options={}, deadline_s=0.1
    )


async def test_a_second_copy_after_a_lie_that_no_knock_could_tell_is_outside(scene: Scene) -> None:
    await scene.start(scene.h1)
    scene.h1.bmc, scene.h1.reachable = Bmc.LYING, False
    await VirtualPower(scene.centre).read(device())
    assert scene.centre.outside == [], "nobody has believed it yet"
    await scene.start(scene.h2, 2)
    why = "db was started on h2 because the controller of h1 lied"
    assert [double.outside for double in scene.centre.doubles] == [why]
    assert scene.centre.outside == [why]


async def test_a_second_copy_after_a_lie_that_a_knock_could_tell_is_not_excused(
    scene: Scene,
) -> None:
    await scene.start(scene.h1)
    scene.h1.bmc, scene.h1.frozen = Bmc.LYING, True
    await VirtualPower(scene.centre).read(device())
    await scene.start(scene.h2, 2)
    assert [double.outside for double in scene.centre.doubles] == [None]
    assert scene.centre.outside == []


async def test_the_same_seed_gives_foreign_guests_the_same_ids() -> None:
    ids = [Scene().centre.add_foreign(VirtualHost("h9"), "old") for _ in range(2)]
    assert ids[0] == ids[1]


async def test_guests_are_told_apart_by_generation_and_foreign_ones_are_left(scene: Scene) -> None:
    await scene.start(scene.h1, 2)
    foreign = scene.centre.add_foreign(scene.h1, "theirs")
    async with scene.hypervisor.session(scene.h1.uri, 1.0) as session:
        with pytest.raises(Superseded):
            await session.destroy(VM, 1)
        with pytest.raises(Conflict, match="DOMAIN_FOREIGN"):
            await session.destroy(foreign, 9)
    states = [domain.state for domain in scene.h1.domains.values()]
    assert states == [DomainState.RUNNING] * 2

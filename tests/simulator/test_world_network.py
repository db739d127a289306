"""Networks with cuts in one direction, and what gets lost on them."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from uuid import UUID

import pytest

from activities.waiting import until
from domain.errors import EngineError, NoAnswer, OutcomeUnknown
from domain.inventory import GuestSpec, VirtType
from domain.readings import Knock
from simulator.world.centre import DataCentre
from simulator.world.happenings import Happenings
from simulator.world.host import Libvirtd, VirtualHost
from simulator.world.hypervisor import VirtualHypervisor, VirtualSession
from simulator.world.latency import Call, Latency
from simulator.world.network import Net, Network

pytestmark = pytest.mark.unit

VM = UUID(int=1)
SPEC = GuestSpec(vm_id=VM, name="db", memory_mib=128, vcpus=1, virt_type=VirtType.KVM)
DEADLINE_S = 0.5
QUICK = (0.0, 0.0)


def quick(**slow_s: float) -> Latency:
    """Calls that take no time, but for those named."""
    ranges = {call: QUICK for call in Call}
    return Latency(Random(1), ranges | {Call(name): (s, s) for name, s in slow_s.items()}, QUICK)


def centre_of(latency: Latency | None = None) -> tuple[DataCentre, VirtualHost, Network]:
    centre = DataCentre(latency=latency)
    return centre, centre.add("h1"), centre.networks[Net.MANAGEMENT]


async def raised(call: Awaitable[object]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await call
    return caught.value


async def soon(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    assert await until(holds, every_s=0.001, within_s=30.0)


def network() -> Network:
    return Network(Net.STORAGE, Happenings())


def test_a_cut_stops_one_direction_of_one_pair_only() -> None:
    net = network()
    net.cut("engine-1", "h1")
    ways = (("engine-1", "h1"), ("h1", "engine-1"), ("engine-2", "h1"), ("engine-1", "h2"))
    assert [net.carries(*way) for way in ways] == [False, True, True, True]
    net.heal("engine-1", "h1")
    assert net.answers("engine-1", "h1")


def test_the_end_of_an_isolation_leaves_single_cuts_as_they_are() -> None:
    net = network()
    net.cut("h1", "h2")
    net.isolate("h1")
    assert not net.carries("h3", "h1")
    net.rejoin("h1")
    assert (net.answers("h1", "h3"), net.carries("h1", "h2")) == (True, False)


def test_a_partition_separates_the_sides_and_nobody_within_one() -> None:
    net = network()
    net.split(["h1", "h2"], ["h3"])
    pairs = (("h1", "h2"), ("h1", "h3"), ("h3", "h2"))
    assert [net.answers(*pair) for pair in pairs] == [True, False, False]
    net.heal_all()
    assert (net.cuts(), net.answers("h1", "h3")) == ((), True)


def test_each_cut_and_each_healing_is_told_once() -> None:
    happenings, told = Happenings(), []
    happenings.observers.append(lambda kind, facts: told.append((kind, facts["target"])))
    net = Network(Net.BMC, happenings)
    net.cut("a", "b")
    net.cut("a", "b")
    net.heal_all()
    net.heal("a", "b")
    assert told == [("network.cut", "b"), ("network.healed", "b")]


async def test_what_one_machine_cannot_reach_another_may() -> None:
    centre, host, net = centre_of()
    net.cut_both("engine-1", "h1")
    one, other = (VirtualHypervisor(centre, f"engine-{n}") for n in (1, 2))
    assert isinstance(await raised(one.poll(host.uri, 1.0)), NoAnswer)
    assert (await other.poll(host.uri, 1.0)).memory_total_mib == 1024
    assert await one.knock(host.uri, 1.0) is Knock.SILENT
    assert await other.knock(host.uri, 1.0) is Knock.ANSWERS


async def test_the_networks_are_independent_of_each_other() -> None:
    centre, host, _net = centre_of()
    centre.networks[Net.BMC].isolate("engine-1")
    centre.networks[Net.STORAGE].isolate("h1")
    assert await VirtualHypervisor(centre).knock(host.uri, 1.0) is Knock.ANSWERS


async def test_a_change_whose_request_is_lost_has_not_happened() -> None:
    centre, host, net = centre_of()
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        net.cut("engine-1", "h1")
        assert isinstance(await raised(session.define(SPEC, 1)), NoAnswer)
    assert host.domains == {}


async def test_a_change_whose_answer_is_lost_has_happened_and_is_unknown() -> None:
    centre, host, net = centre_of()
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        net.cut("h1", "engine-1")
        assert isinstance(await raised(session.define(SPEC, 1)), OutcomeUnknown)
    assert list(host.domains) == [VM]


async def test_a_read_whose_answer_is_lost_is_no_answer() -> None:
    centre, host, net = centre_of()
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        net.cut("h1", "engine-1")
        assert isinstance(await raised(session.lookup(VM)), NoAnswer)


async def test_a_session_is_dead_after_a_call_without_an_answer() -> None:
    centre, host, net = centre_of()
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        net.cut("engine-1", "h1")
        await raised(session.lookup(VM))
        net.heal_all()
        assert isinstance(await raised(session.define(SPEC, 1)), NoAnswer)
    assert host.domains == {}


async def test_a_session_does_not_outlive_its_boot() -> None:
    centre, host, _net = centre_of()
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        host.reboot()
        assert isinstance(await raised(session.define(SPEC, 1)), NoAnswer)
    assert host.domains == {}


async def test_a_stopped_libvirtd_refuses_its_port_and_drops_its_sessions() -> None:
    centre, host, _net = centre_of()
    host.mark = 4
    hypervisor = VirtualHypervisor(centre)
    async with hypervisor.session(host.uri, 1.0) as session:
        host.set_libvirtd(Libvirtd.DOWN)
        assert (await raised(hypervisor.poll(host.uri, 1.0))).code == "HOST_PORT_REFUSED"
        assert await hypervisor.knock(host.uri, 1.0) is Knock.REFUSED
        host.set_libvirtd(Libvirtd.ALIVE)
        assert isinstance(await raised(session.lookup(VM)), NoAnswer)
    assert (await hypervisor.poll(host.uri, 1.0)).boot_mark == 4, "the boot is the same"


async def test_a_hung_libvirtd_is_silent_behind_an_open_door() -> None:
    centre, host, _net = centre_of()
    host.frozen = True
    hypervisor = VirtualHypervisor(centre)
    assert (await raised(hypervisor.poll(host.uri, 1.0))).code == "HOST_NO_ANSWER"
    assert await hypervisor.knock(host.uri, 1.0) is Knock.OPEN


async def test_silence_costs_the_whole_deadline_where_calls_take_time() -> None:
    centre, host, net = centre_of(quick())
    net.cut("h1", "engine-1")
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await VirtualHypervisor(centre).knock(host.uri, DEADLINE_S) is Knock.SILENT
    assert isinstance(await raised(VirtualHypervisor(centre).poll(host.uri, DEADLINE_S)), NoAnswer)
    assert clock() - began >= 2 * DEADLINE_S * 0.9


async def test_a_refused_port_costs_no_deadline() -> None:
    centre, host, _net = centre_of(quick())
    host.set_libvirtd(Libvirtd.DOWN)
    async with asyncio.timeout(5):
        refused = await raised(VirtualHypervisor(centre).poll(host.uri, 60.0))
    assert refused.code == "HOST_PORT_REFUSED"


async def defined(session: VirtualSession) -> VirtualSession:
    await session.define(SPEC, 1)
    return session


async def test_a_start_that_was_given_up_may_still_come_true() -> None:
    centre, host, _net = centre_of(quick(create=3.0))
    async with VirtualHypervisor(centre).session(host.uri, DEADLINE_S) as session:
        late = await raised((await defined(session)).create(VM, 1))
        assert (type(late), centre.copies(VM)) == (OutcomeUnknown, [])
    await soon(lambda: centre.copies(VM) == ["h1"])


async def test_a_start_is_carried_out_though_its_caller_was_killed() -> None:
    centre, host, _net = centre_of(quick(create=0.02))
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        await defined(session)
        caller = asyncio.create_task(session.create(VM, 1))
        await asyncio.sleep(0)
        caller.cancel()
    await soon(lambda: centre.copies(VM) == ["h1"])


async def test_a_request_on_its_way_is_lost_with_the_link() -> None:
    centre, host, net = centre_of(quick(create=0.02))
    async with VirtualHypervisor(centre).session(host.uri, DEADLINE_S) as session:
        caller = asyncio.create_task((await defined(session)).create(VM, 1))
        await asyncio.sleep(0)
        net.cut("engine-1", "h1")
        assert isinstance(await raised(caller), OutcomeUnknown), "it was sent, and nobody knows"
    assert centre.copies(VM) == []


async def test_what_a_hung_libvirtd_has_received_is_carried_out_when_it_goes_on() -> None:
    centre, host, _net = centre_of(quick(create=0.01))
    async with VirtualHypervisor(centre).session(host.uri, DEADLINE_S) as session:
        caller = asyncio.create_task((await defined(session)).create(VM, 1))
        await asyncio.sleep(0)
        host.frozen = True
        assert isinstance(await raised(caller), OutcomeUnknown)
    assert centre.copies(VM) == []
    host.frozen = False
    assert centre.copies(VM) == ["h1"]


async def test_what_a_hung_libvirtd_has_received_dies_with_the_boot() -> None:
    centre, host, _net = centre_of(quick(create=0.01))
    async with VirtualHypervisor(centre).session(host.uri, DEADLINE_S) as session:
        caller = asyncio.create_task((await defined(session)).create(VM, 1))
        await asyncio.sleep(0)
        host.frozen = True
        await raised(caller)
    assert len(host.held) == 1
    host.reboot()
    assert (host.frozen, host.held, centre.copies(VM)) == (False, [], [])


async def test_the_same_seed_gives_the_same_times() -> None:
    draws = [[Latency(Random(seed)).draw(call) for call in Call] for seed in (3, 3, 4)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


async def test_without_latency_a_call_lets_nobody_else_in() -> None:
    centre, host, _net = centre_of()
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "somebody")
    async with VirtualHypervisor(centre).session(host.uri, 1.0) as session:
        await (await defined(session)).create(VM, 1)
    assert others == []

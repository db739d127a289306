"""The fleet's drivers over a real socket: faults of the world, of the wire and of either end."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from activities.waiting import until
from cli.processes import Process
from domain.errors import Conflict, Invalid, NoAnswer, NotFound, OutcomeUnknown, Superseded
from domain.inventory import FenceDevice, GuestSpec, PowerReading, VirtType
from domain.readings import Knock
from simulator.fleet.control import Mode
from simulator.fleet.drivers import AGENT, FarControl, FarHypervisor, FarPower
from simulator.fleet.saved import read_file
from simulator.fleet.server import Desk, made, run_fleet, served
from simulator.fleet.spec import FleetSpec
from simulator.fleet.wire import Asked, written
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc
from simulator.world.latency import Call, Latency
from worker.settings import Settings

pytestmark = pytest.mark.unit

LIMIT_S = 20.0
VM = UUID(int=1)
GUEST = GuestSpec(vm_id=VM, name="db", memory_mib=128, vcpus=1, virt_type=VirtType.KVM)
SPEC = FleetSpec(hosts=2, vms=1)
QUICK = {call: (0.001, 0.002) for call in Call}


class Scene:
    """A fleet of two hosts behind a socket, and its drivers."""

    def __init__(self, centre: DataCentre, path: Path) -> None:
        self.centre, self.path = centre, path
        self.h1, self.h2 = centre.hosts.values()
        self.hypervisor, self.power = FarHypervisor(path), FarPower(path)
        self.control = FarControl(path)

    async def talk(self, sent: bytes) -> bytes:
        """Send raw bytes and hang up; what comes back."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(sent)
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(), LIMIT_S)
        writer.close()
        return got


async def eventually(holds: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return holds()

    assert await until(asked, every_s=0.01, within_s=LIMIT_S)


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    centre = made(SPEC, Latency(Random(1), QUICK), boot_s=0.01)
    path = tmp_path / "s"
    async with served(centre, path, Desk(centre, tmp_path)):
        yield Scene(centre, path)


def device(host: str, deadline_s: float = 5.0) -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name=f"bmc-{host}",
        agent=AGENT,
        options={},
        deadline_s=deadline_s,
    )


async def start(scene: Scene, uri: str, generation: int = 1, *, within_s: float = LIMIT_S) -> None:
    async with scene.hypervisor.session(uri, within_s) as session:
        await session.define(GUEST, generation)
        await session.create(VM, generation)


async def test_a_guest_lives_its_life_over_the_socket(scene: Scene) -> None:
    async with scene.hypervisor.session(scene.h1.uri, LIMIT_S) as session:
        await session.set_boot_mark(3)
        assert await session.boot_mark() == 3
        await session.define(GUEST, 1)
        await session.create(VM, 1)
        found = await session.lookup(VM)
        assert found is not None
        assert found.alive
        assert await session.domains() == (found,)
        assert await session.list_foreign() == ()
        described = await session.describe_foreign(VM)
        assert described is not None
        assert described.generation == 1
        await session.shutdown(VM, 1)
        await session.destroy(VM, 1)
        await session.undefine(VM, 1)
        assert await session.lookup(VM) is None
    reading = await scene.hypervisor.poll(scene.h1.uri, LIMIT_S)
    assert (reading.boot_mark, reading.guests) == (3, ())
    assert await scene.hypervisor.knock(scene.h1.uri, LIMIT_S) is Knock.ANSWERS


async def test_a_guest_that_nobody_marked_is_adopted_and_given_back(scene: Scene) -> None:
    guest, claim = scene.centre.add_foreign(scene.h1, "old"), uuid4()
    async with scene.hypervisor.session(scene.h1.uri, LIMIT_S) as session:
        found = await session.describe_foreign("old")
        assert found is not None
        assert found.guest_id == guest
        await session.adopt(guest, 1, claim)
        await session.disown(guest, claim)
        assert [each.guest_id for each in await session.list_foreign()] == [guest]


async def test_refusals_of_a_host_arrive_as_what_they_are(scene: Scene) -> None:
    await start(scene, scene.h1.uri, 5)
    async with scene.hypervisor.session(scene.h1.uri, LIMIT_S) as session:
        with pytest.raises(Superseded) as stale:
            await session.create(VM, 4)
        with pytest.raises(Conflict) as running:
            await session.undefine(VM, 5)
        assert (stale.value.code, running.value.code) == ("GENERATION_STALE", "DOMAIN_RUNNING")
        assert await session.boot_mark() is None, "a refusal costs no connection"


async def test_a_silent_host_costs_the_deadline_and_says_nothing(scene: Scene) -> None:
    scene.h1.lose_power()
    with pytest.raises(NoAnswer) as polled:
        await scene.hypervisor.poll(scene.h1.uri, 0.05)
    with pytest.raises(NoAnswer):
        await start(scene, "qemu+tcp://nowhere/system", within_s=0.05)
    assert polled.value.code == "HOST_NO_ANSWER"
    assert await scene.hypervisor.knock(scene.h1.uri, 0.05) is Knock.SILENT


async def test_a_session_dies_with_the_boot_that_it_was_opened_in(scene: Scene) -> None:
    async with scene.hypervisor.session(scene.h1.uri, LIMIT_S) as session:
        await session.define(GUEST, 1)
        scene.h1.reboot()
        await eventually(lambda: scene.h1.answers)
        with pytest.raises(NoAnswer):
            await session.create(VM, 1)
    assert scene.centre.copies(VM) == []


async def test_power_is_read_cut_and_given_back(scene: Scene) -> None:
    assert await scene.power.read(device("h1")) is PowerReading.ON
    await scene.power.off(device("h1"))
    assert await scene.power.read(device("h1")) is PowerReading.OFF
    assert not scene.h1.powered
    await scene.power.on(device("h1"))
    assert scene.h1.powered


async def test_a_controller_that_fails_reads_unknown_and_takes_no_command(scene: Scene) -> None:
    scene.h1.bmc = Bmc.WRONG_PASSWORD
    assert await scene.power.read(device("h1")) is PowerReading.UNKNOWN
    with pytest.raises(NoAnswer) as refused:
        await scene.power.off(device("h1"))
    assert refused.value.code == "FENCE_AGENT_FAILED"
    assert scene.h1.powered


async def test_a_device_of_no_host_is_silent(scene: Scene) -> None:
    assert await scene.power.read(device("h9")) is PowerReading.UNKNOWN
    for command in (scene.power.off, scene.power.on):
        with pytest.raises(NoAnswer) as refused:
            await command(device("h9"))
        assert refused.value.code == "BMC_NO_ANSWER"


async def test_a_fleet_that_is_away_says_nothing_about_its_hosts(tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"
    with pytest.raises(NoAnswer) as polled:
        await FarHypervisor(nobody).poll("qemu+tcp://h1/system", 1.0)
    with pytest.raises(NoAnswer) as knocked:
        await FarHypervisor(nobody).knock("qemu+tcp://h1/system", 1.0)
    with pytest.raises(NoAnswer) as asked:
        await FarControl(nobody).status()
    with pytest.raises(NoAnswer):
        await FarPower(nobody).off(device("h1"))
    assert polled.value.code == "HOST_NO_ANSWER"
    assert knocked.value.code == "KNOCK_NOT_POSSIBLE", "silence would be evidence"
    assert asked.value.code == "FLEET_NO_ANSWER"
    assert await FarPower(nobody).read(device("h1")) is PowerReading.UNKNOWN


async def test_a_fleet_that_dies_in_a_change_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            seen.append(json.loads(line)["call"])
            if seen[-1] in ("create", "boot_mark"):
                break
            writer.write(b'{"value":null}\n')
        writer.close()

    server = await asyncio.start_unix_server(die, tmp_path / "s")
    try:
        hypervisor = FarHypervisor(tmp_path / "s")
        async with hypervisor.session("qemu+tcp://h1/system", 1.0) as session:
            with pytest.raises(OutcomeUnknown):
                await session.create(VM, 1)
            with pytest.raises(NoAnswer):
                await session.create(VM, 1)
        async with hypervisor.session("qemu+tcp://h1/system", 1.0) as session:
            with pytest.raises(NoAnswer):
                await session.boot_mark()
    finally:
        server.close()
    assert seen == ["session", "create", "session", "boot_mark"]


async def test_a_call_given_up_half_way_spoils_its_connection_alone(scene: Scene) -> None:
    async with scene.hypervisor.session(scene.h1.uri, LIMIT_S) as session:
        await session.define(GUEST, 1)
        slow = asyncio.ensure_future(session.create(VM, 1))
        scene.h1.slowness = 50.0
        await asyncio.sleep(0)  # into its first wait, which is where it is given up
        slow.cancel()
        with suppress(asyncio.CancelledError):
            await slow
        scene.h1.slowness = 1.0
        with pytest.raises(NoAnswer):
            await session.lookup(VM)
    await scene.hypervisor.poll(scene.h1.uri, LIMIT_S)


async def test_a_call_that_came_in_is_carried_out_though_its_caller_is_dead(scene: Scene) -> None:
    await start(scene, scene.h2.uri)
    reader, writer = await asyncio.open_unix_connection(scene.path)
    writer.write(written(Asked(port="Hypervisor", call="session", args=(scene.h2.uri, 5.0))))
    assert await asyncio.wait_for(reader.readline(), LIMIT_S)
    writer.write(written(Asked(port="HypervisorSession", call="destroy", args=(str(VM), 1))))
    writer.close()
    await eventually(lambda: scene.centre.copies(VM) == [])
    await start(scene, scene.h2.uri, 2)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff garbage\n",
        b"{}\n",
        b"x" * 100_000 + b"\n",
        b'{"port":"Hypervisor","call":"__init__"}\n',
        b'{"port":"Hypervisor","call":"_is_protocol"}\n',
        b'{"port":"os","call":"system","args":["true"]}\n',
        b'{"port":"HypervisorSession","call":"domains","args":[]}\n',
        b'{"port":"Control","call":"crash","args":[7]}\n',
    ],
)
async def test_garbage_is_refused_and_harms_nobody_else(scene: Scene, sent: bytes) -> None:
    answer = json.loads(await scene.talk(sent))
    assert answer["error"]["code"] == "FLEET_MESSAGE_INVALID"
    assert (await scene.control.status()).hosts[0].power


async def test_half_a_message_is_no_message(scene: Scene) -> None:
    assert await scene.talk(b'{"port":"Control","call":"crash","args":["h1"]}') == b""
    assert scene.h1.powered


async def test_a_defect_of_the_world_is_one_call_s_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataCentre, "host_at", lambda _self, _uri: 1 // 0)
    with pytest.raises(Exception, match="FLEET_DEFECT"):
        await scene.hypervisor.poll(scene.h1.uri, 1.0)
    monkeypatch.undo()
    await scene.hypervisor.poll(scene.h1.uri, LIMIT_S)


def test_only_the_owner_may_use_the_socket(tmp_path: Path) -> None:
    async def mode() -> int:
        centre = made(SPEC, None)
        async with served(centre, tmp_path / "s", Desk(centre, tmp_path)):
            return stat.S_IMODE(os.stat(tmp_path / "s").st_mode)

    assert asyncio.run(mode()) == 0o600
    assert not (tmp_path / "s").exists()


async def test_hands_break_hosts_and_mend_them(scene: Scene) -> None:
    await start(scene, scene.h1.uri)
    ask = scene.control

    async def seen() -> tuple[bool, bool, str, str, tuple[str, ...]]:
        host = (await ask.status()).hosts[0]
        return host.power, host.link, host.libvirt, host.bmc, host.guests

    assert await seen() == (True, True, "answers", "ok", ("db",))
    await ask.isolate("h1")
    await ask.hang("h1")
    await ask.bmc("h1", Mode.DEAD)
    assert await seen() == (True, False, "frozen", "dead", ("db",))
    await ask.unhang("h1")
    assert (await seen())[2] == "silent"
    await ask.heal("h1")
    await ask.bmc("h1", Mode.OK)
    assert await seen() == (True, True, "answers", "ok", ("db",))
    await ask.crash("h1")
    assert await seen() == (False, False, "off", "ok", ())
    await ask.hang("h1")
    await ask.power_on("h1")
    await eventually(lambda: scene.h1.answers)
    assert await seen() == (True, True, "answers", "ok", ())
    assert [(each.vm, each.hosts, each.most) for each in await ask.copies()] == [("db", (), 1)]


async def test_a_host_that_the_fleet_does_not_have_is_named(scene: Scene) -> None:
    with pytest.raises(NotFound) as refused:
        await scene.control.crash("h9")
    assert refused.value.code == "LAB_HOST_UNKNOWN"
    assert "h1, h2" in refused.value.next_step


async def test_a_fleet_stopped_cleanly_is_found_again_and_a_killed_one_is_not(
    tmp_path: Path,
) -> None:
    async def run(*, cleanly: bool) -> list[str]:
        """Start a guest where none is; the guests that were found."""
        task = asyncio.ensure_future(run_fleet(SPEC, tmp_path))
        control = FarControl(tmp_path / "fleet.sock")
        assert await until(lambda: _answers(control), every_s=0.01, within_s=LIMIT_S)
        found = [name for host in (await control.status()).hosts for name in host.guests]
        if not found:
            hypervisor = FarHypervisor(tmp_path / "fleet.sock")
            async with hypervisor.session("qemu+tcp://h1/system", LIMIT_S) as session:
                await session.define(GUEST, 1)
                await session.create(VM, 1)
        await control.set_built()
        left = (tmp_path / "fleet.json").read_text()
        task.cancel()
        await asyncio.wait([task])
        if not cleanly:
            (tmp_path / "fleet.json").write_text(left)
        return found

    assert await run(cleanly=True) == []
    assert await run(cleanly=False) == ["db"]
    assert await run(cleanly=True) == []
    file = read_file(tmp_path)
    assert file is not None
    assert file.built


async def _answers(control: FarControl) -> bool:
    with suppress(NoAnswer):
        await control.status()
        return True
    return False


async def test_the_virtual_agent_is_there_in_fleet_mode_only(tmp_path: Path) -> None:
    far = Process(Settings(var=tmp_path, fleet="sim:hosts=3,vms=0"))
    near = Process(Settings(var=tmp_path))
    await far.check(AGENT, {}, {})
    with pytest.raises(Invalid) as option:
        await far.check(AGENT, {"ip": "10.0.0.1"}, {})
    with pytest.raises(Invalid) as other:
        await far.check("fence_ipmilan", {}, {})
    with pytest.raises(Invalid) as real:
        await near.check(AGENT, {}, {})
    assert option.value.code == "FENCE_OPTION_UNKNOWN"
    assert {other.value.code, real.value.code} == {"FENCE_AGENT_UNKNOWN"}
    assert AGENT in other.value.next_step
    assert isinstance(far.hypervisor(), FarHypervisor)
    await far.database.close()
    await near.database.close()

"""What tests of fence devices leave in the rows, and the warning before a device is needed."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from activities.ports import Claim
from domain.errors import NoAnswer
from domain.fence_checks import DeviceCheck, Identity
from domain.inventory import FenceDevice, PowerReading
from engine.actions.fence_devices import EditFenceDevice
from engine.records.fence_checks import ANSWERS, OTHER, SILENT, FenceCheckRecords
from tests.store.engine_room import Engine
from worker.fence_watch import COMPARED_EVERY, FenceWatch

pytestmark = pytest.mark.store


class Switch:
    """Fits `PowerSwitch`: reads what it is told to."""

    says = PowerReading.ON

    def __init__(self, *manages: UUID) -> None:
        self.asked: list[str] = []
        self.compared = 0
        self.manages = manages

    async def read(self, device: FenceDevice) -> PowerReading:
        self.asked.append(device.name)
        return self.says

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        raise AssertionError("a test switches nothing")

    on = off

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        self.compared += 1
        return self.manages


class Hosts:
    """Fits `Machines`: every host is this machine."""

    def __init__(self, machine: UUID | None = None) -> None:
        self.machine_id = machine

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        if self.machine_id is None:
            raise NoAnswer("HOST_NO_ANSWER", f"nothing comes back from {uri}")
        return self.machine_id


def records(engine: Engine) -> FenceCheckRecords:
    return FenceCheckRecords(engine.world.database, lambda: engine.world.now)


def watch(engine: Engine, switch: Switch, machine: UUID | None = None) -> FenceWatch:
    return FenceWatch(records(engine), switch, Hosts(machine), lambda: engine.world.now)


async def warnings(engine: Engine) -> list[tuple[str, Any]]:
    rows = sorted(await engine.rows("event"), key=lambda row: row["at"])
    return [(r["type"], r["data"]["name"]) for r in rows if r["type"] in (SILENT, ANSWERS, OTHER)]


async def test_a_device_that_stops_answering_is_told_once_and_once_more_when_it_is_back(
    engine: Engine,
) -> None:
    device_id, switch = await engine.world.device(await engine.world.host()), Switch()
    looking = watch(engine, switch)
    for says in ("on", "unknown", "unknown", "off", "on"):
        switch.says = PowerReading(says)
        engine.world.later(300)
        await looking.round()
    assert await warnings(engine) == [(SILENT, "bmc1"), (ANSWERS, "bmc1")]
    row = await engine.world.get("fence_device", device_id)
    assert (row["test_reading"], row["silent_since"]) == ("on", None)
    assert row["last_tested_at"] == engine.world.now


async def test_a_silent_device_shows_since_when(engine: Engine) -> None:
    device_id, switch = await engine.world.device(await engine.world.host()), Switch()
    switch.says = PowerReading.UNKNOWN
    since = engine.world.now
    await watch(engine, switch).round()
    engine.world.later(300)
    await watch(engine, switch).round()
    row = await engine.world.get("fence_device", device_id)
    assert (row["silent_since"], row["last_tested_at"]) == (since, engine.world.now)
    assert switch.asked == ["bmc1"] * 4, "each round asks once more before it believes silence"


async def test_of_many_that_see_a_device_fall_silent_one_tells(engine: Engine) -> None:
    await engine.world.device(await engine.world.host())
    switch = Switch()
    switch.says = PowerReading.UNKNOWN
    await asyncio.gather(*(watch(engine, switch).round() for _ in range(4)))
    assert await warnings(engine) == [(SILENT, "bmc1")]


async def test_only_devices_of_hosts_in_service_are_asked(engine: Engine) -> None:
    for number, state in enumerate(("up", "maintenance", "fencing", "non_responsive", "down")):
        host = await engine.world.host(f"h{number}", state=state)
        await engine.world.device(host, f"bmc{number}")
    switch = Switch()
    await watch(engine, switch).round()
    assert switch.asked == ["bmc0"]


async def test_a_look_at_the_status_alone_leaves_the_identity_that_a_test_found(
    engine: Engine,
) -> None:
    host = await engine.world.host()
    device_id = await engine.world.device(host)
    check = DeviceCheck(
        device_id=device_id,
        device="bmc1",
        reading=PowerReading.ON,
        took_s=0.3,
        identity=Identity.OTHER,
        at=engine.world.now.isoformat(),
    )
    await records(engine).note_checks(await engine.ref(host), (check,))
    await watch(engine, Switch()).round()
    assert (await engine.world.get("fence_device", device_id))["test_identity"] == "other"


@pytest.mark.parametrize(
    ("before", "says", "after"),
    [
        (Identity.OTHER, Identity.UNTOLD, "other"),
        (Identity.OTHER, Identity.SAME, "same"),
        (Identity.SAME, Identity.UNTOLD, "untold"),
        (None, Identity.UNTOLD, "untold"),
    ],
)
async def test_a_device_of_another_machine_stays_so_until_it_is_told_that_it_is_not(
    engine: Engine, before: Identity | None, says: Identity, after: str
) -> None:
    host = await engine.world.host()
    device_id = await engine.world.device(host)
    for identity in (before, says):
        check = DeviceCheck(
            device_id=device_id,
            device="bmc1",
            reading=PowerReading.ON,
            took_s=0.3,
            identity=identity,
            at=engine.world.now.isoformat(),
        )
        await records(engine).note_checks(await engine.ref(host), (check,))
    assert (await engine.world.get("fence_device", device_id))["test_identity"] == after


async def test_a_device_that_becomes_another_one_forgets_what_was_tested(engine: Engine) -> None:
    device_id = await engine.world.device(await engine.world.host())
    await engine.world.put("fence_device", device_id, secrets=b"password=hunter2"[::-1])
    await watch(engine, Switch()).round()
    moved = EditFenceDevice(fence_device_id=device_id, options={"ip": "127.0.0.9"})
    await engine.act(moved)
    row = await engine.world.get("fence_device", device_id)
    assert (row["last_tested_at"], row["test_reading"], row["silent_since"]) == (None, None, None)


async def test_a_device_of_another_machine_is_found_out_in_the_first_round_and_told_once(
    engine: Engine,
) -> None:
    device_id, here = await engine.world.device(await engine.world.host()), uuid4()
    swapped = Switch(uuid4())
    looking = watch(engine, swapped, here)
    for _ in range(2 * COMPARED_EVERY):
        engine.world.later(300)
        await looking.round()
    assert (await warnings(engine), swapped.compared) == ([(OTHER, "bmc1")], 2)
    assert (await engine.world.get("fence_device", device_id))["test_identity"] == "other"
    (event,) = [row for row in await engine.rows("event") if row["type"] == OTHER]
    assert "another machine than h" in event["data"]["why"]


async def test_a_device_that_was_put_right_is_told_of_again_should_it_be_swapped_again(
    engine: Engine,
) -> None:
    device_id, here = await engine.world.device(await engine.world.host()), uuid4()
    for manages in (uuid4(), here, uuid4()):
        engine.world.later(300)
        await watch(engine, Switch(manages), here).round()
        identity = (await engine.world.get("fence_device", device_id))["test_identity"]
        assert identity == ("same" if manages == here else "other")
    assert await warnings(engine) == [(OTHER, "bmc1"), (OTHER, "bmc1")]


@pytest.mark.parametrize("switch", [Switch(), Switch(UUID(int=7))])
async def test_where_a_host_or_its_device_tells_no_machine_nothing_is_said_of_it(
    engine: Engine, switch: Switch
) -> None:
    device_id = await engine.world.device(await engine.world.host())
    await watch(engine, switch, None if switch.manages else uuid4()).round()
    assert await warnings(engine) == []
    assert (await engine.world.get("fence_device", device_id))["test_identity"] is None

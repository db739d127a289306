"""The order of a planned power switch, and a reboot that was lost, stand in the statements."""

from uuid import UUID

import pytest

from domain.planned import HostPower
from store import planned
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store

GOING_OFF, OFF, COMING_ON, ON = HostPower


class Room:
    """A host in maintenance, and a reboot of it."""

    def __init__(self, engine: Engine, host: UUID, operation: UUID) -> None:
        self.engine, self.host, self.operation = engine, host, operation

    async def claim(self, power: HostPower) -> bool:
        mine = (self.host, 1, self.operation, 1)
        return await self.engine.world.do(planned.claim_power, *mine, power)

    async def note(self, power: HostPower) -> bool:
        world = self.engine.world
        return await world.do(planned.note_power, self.host, 1, power, "read", world.now)

    async def leave_out(self, epoch: int = 1, since_try: int = 1) -> bool:
        world, mine = self.engine.world, (self.host, epoch, self.operation)
        return await world.do(planned.leave_out, *mine, "lost", world.now, since_try=since_try)

    async def power(self) -> str | None:
        found: str | None = (await self.engine.world.get("host", self.host))["power"]
        return found


async def room(engine: Engine, state: str = "maintenance", kind: str = "host.reboot") -> Room:
    host = await engine.world.host(state=state)
    operation = await engine.world.operation(host, kind=kind, state="running", target_type="host")
    return Room(engine, host, operation)


async def test_off_is_not_claimed_once_on_was(engine: Engine) -> None:
    made = await room(engine)
    assert await made.claim(GOING_OFF)
    assert await made.claim(GOING_OFF)
    assert await made.note(OFF)
    assert await made.claim(GOING_OFF)
    assert await made.note(OFF)
    assert await made.claim(COMING_ON)
    assert not await made.claim(GOING_OFF)
    assert not await made.note(OFF)
    assert await made.note(ON)
    assert not await made.claim(GOING_OFF)
    assert (await made.claim(COMING_ON), await made.power()) == (True, COMING_ON.value)


async def test_on_is_not_claimed_before_off_was_read(engine: Engine) -> None:
    made = await room(engine)
    assert not await made.claim(COMING_ON)
    assert not await made.note(OFF)
    assert await made.claim(GOING_OFF)
    assert not await made.claim(COMING_ON)
    assert not await made.note(ON)
    assert await made.power() == GOING_OFF.value


async def test_a_new_try_may_switch_off_what_an_earlier_one_has_switched_on(engine: Engine) -> None:
    made = await room(engine)
    for stage, ends in ((COMING_ON, None), (ON, None), (OFF, "off")):
        await engine.world.put("host", made.host, power=stage.value)
        await engine.world.do(planned.begin_anew, made.host)
        assert await made.power() == ends
        assert await made.claim(GOING_OFF)


async def test_a_reboot_that_was_lost_leaves_its_host_out_of_service(engine: Engine) -> None:
    made = await room(engine, "reconciling")
    assert not await made.leave_out(epoch=2)
    assert not await made.leave_out(since_try=2)
    assert await made.leave_out()
    assert (await engine.world.get("host", made.host))["state"] == "non_operational"
    assert not await made.leave_out()


@pytest.mark.parametrize("how", ["over", "fencing", "maintained"])
async def test_a_host_in_other_hands_is_not_left_out(engine: Engine, how: str) -> None:
    kind = "host.maintain" if how == "maintained" else "host.reboot"
    made = await room(engine, "reconciling", kind)
    if how == "over":
        await engine.world.put("operation", made.operation, state="cancelled")
    if how == "fencing":  # FAILED would move it, too
        await engine.world.put("host", made.host, state="fencing")
    assert not await made.leave_out()

"""What is told to a running workflow: each thing once, and in its order, whoever tells it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from domain.context import PriorityClass
from domain.errors import Unavailable
from domain.operations import WorkflowState
from engine.actions.operations import (
    CancelOperation,
    PauseOperation,
    PrioritiseOperation,
    ResumeOperation,
)
from engine.actions.vms import StartVm
from engine.delivery import TAKEN_S, Delivery
from engine.writes import DIRECT_START_S
from tests.fakes import Gate
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


class Temporal:
    """Writes down what it was told; `gate` keeps one signal on its way, `away` refuses all."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.gates: dict[str, Gate] = {}
        self.away = False
        self.broken: set[str] = set()

    async def start(self, workflow: str, *_: Any, wid: str, **__: Any) -> None:
        if wid in self.broken:
            raise LookupError("nobody knows such an order")
        await self._tell("start")

    async def cancel(self, wid: str) -> None:
        await self._tell("cancel")

    async def signal(self, wid: str, name: str) -> None:
        await self._tell(name)

    async def raise_priority(self, wid: str, priority: int) -> None:
        await self._tell(f"class {priority}")

    async def describe(self, wid: str) -> WorkflowState:
        return WorkflowState.RUNNING

    async def _tell(self, what: str) -> None:
        if self.away:
            raise Unavailable("TEMPORAL_UNAVAILABLE", "nobody there")
        if gate := self.gates.get(what):
            await gate()
        self.told.append(what)


class Scene:
    """A start that runs, the process that accepts requests about it, and a relay beside it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.told: list[str] = []
        self.direct, self.far = Temporal(self.told), Temporal(self.told)
        direct: Any = self.direct
        far: Any = self.far
        self.api = Delivery(self.world.database, direct, self.world.clock)
        self.relay = Delivery(self.world.database, far, self.world.clock)
        self.operation = UUID(int=0)

    async def build(self) -> "Scene":
        await self.world.host()
        vm = await self.world.vm()
        self.operation = (await self.engine.act(StartVm(vm_id=vm))).operation_id
        await self.engine.operations.claim(self.operation, 1, "run-1")
        await self.api.deliver(self.operation)
        self.told.clear()
        return self

    async def ask(self, wish: type[Any], **more: Any) -> None:
        await self.engine.act(wish(operation_id=self.operation, **more))

    async def pause(self) -> None:
        await self.ask(PauseOperation)

    async def resume(self) -> None:
        await self.engine.operations.pause(self.operation, True)
        await self.ask(ResumeOperation)


@pytest.fixture
async def scene(engine: Engine) -> Scene:
    return await Scene(engine).build()


async def test_the_relay_leaves_a_fresh_word_to_the_process_that_took_it(scene: Scene) -> None:
    await scene.pause()
    assert await scene.relay.deliver_due() == 0
    scene.world.later(DIRECT_START_S)
    assert await scene.relay.deliver_due() == 1
    await scene.api.deliver(scene.operation)
    assert scene.told == ["pause"]


@pytest.mark.parametrize("first", ["api", "relay"])
async def test_a_word_that_one_is_telling_is_not_told_by_the_other(
    scene: Scene, first: str
) -> None:
    await scene.pause()
    scene.world.later(DIRECT_START_S)
    gate = Gate()
    scene.direct.gates["pause"] = scene.far.gates["pause"] = gate
    ways = {"api": scene.api.deliver(scene.operation), "relay": scene.relay.deliver_due()}
    slow = asyncio.ensure_future(ways.pop(first))
    await gate.reached.wait()
    (other,) = ways.values()
    async with asyncio.timeout(20):
        await other
    gate.open()
    await slow
    assert scene.told == ["pause"]


async def test_what_comes_after_a_word_on_its_way_waits_for_it(scene: Scene) -> None:
    await scene.pause()
    scene.world.later(DIRECT_START_S)
    gate = scene.far.gates["pause"] = Gate()
    slow = asyncio.create_task(scene.relay.deliver_due())
    await gate.reached.wait()
    await scene.resume()
    await scene.api.deliver(scene.operation)
    scene.world.later(DIRECT_START_S)
    assert await scene.api.deliver_due() == 0
    gate.open()
    assert await slow == 1
    assert await scene.api.deliver_due() == 1
    assert scene.told == ["pause", "resume"]


async def test_what_comes_after_a_word_that_was_not_taken_waits_for_it(scene: Scene) -> None:
    await scene.pause()
    scene.direct.away = True
    await scene.api.deliver(scene.operation)
    await scene.resume()
    scene.direct.away = False
    await scene.api.deliver(scene.operation)
    assert scene.told == [], "the pause is the relay's by now"
    scene.world.later(DIRECT_START_S)
    assert await scene.relay.deliver_due() == 2
    assert scene.told == ["pause", "resume"]


async def test_a_word_is_told_after_all_when_its_teller_has_died(scene: Scene) -> None:
    await scene.pause()
    gate = scene.direct.gates["pause"] = Gate()
    dying = asyncio.create_task(scene.api.deliver(scene.operation))
    await gate.reached.wait()
    dying.cancel()
    await asyncio.wait([dying])
    scene.world.later(DIRECT_START_S)
    assert await scene.relay.deliver_due() == 0
    scene.world.later(TAKEN_S)
    assert await scene.relay.deliver_due() == 1
    assert scene.told == ["pause"]


async def test_a_cancel_request_and_a_priority_are_left_to_their_process_as_well(
    scene: Scene,
) -> None:
    await scene.ask(PrioritiseOperation, priority=PriorityClass.BALANCE)
    await scene.ask(CancelOperation)
    assert await scene.relay.deliver_due() == 0
    await scene.api.deliver(scene.operation)
    assert scene.told == ["class 4", "cancel"]


async def test_a_row_that_nobody_can_tell_keeps_no_other_waiting(scene: Scene) -> None:
    engine, world = scene.engine, scene.world
    broken = (await engine.act(StartVm(vm_id=await world.vm("strange")))).operation_id
    await engine.act(StartVm(vm_id=await world.vm("plain")))
    scene.far.broken.add(f"op/{broken}/1")
    world.later(DIRECT_START_S)
    assert await scene.relay.deliver_due() == 1
    assert scene.told == ["start"]
    (left,) = [row for row in await engine.rows("outbox") if row["done_at"] is None]
    assert (left["operation_id"], left["tries"]) == (broken, 1)
    assert left["last_error"] == "nobody knows such an order"
    scene.far.broken.clear()
    world.later(DIRECT_START_S)
    assert await scene.relay.deliver_due() == 1

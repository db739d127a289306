"""What a plan asks of the world outside is fetched before the transaction: nobody waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from domain.errors import Denied, NoAnswer
from domain.permissions import Role
from engine.actions.base import Params
from engine.actions.fence_devices import AddFenceDevice, EditFenceDevice
from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.registry import all_actions, all_queries
from engine.roles import Roles
from tests.fakes import Gate
from tests.store.engine_room import Agents, Engine, Sealer
from tests.store.world import PERSON

pytestmark = pytest.mark.store


class SlowAgents(Agents):
    """Agents whose first word about themselves takes until the gate is opened."""

    def __init__(self) -> None:
        self.gate, self.known, self.silent = Gate(), set[str](), False

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        if self.silent:
            raise NoAnswer("FENCE_AGENT_FAILED", f"{agent} prints nothing")
        if agent not in self.known:
            await self.gate()
            self.known.add(agent)
        await super().check(agent, options, secrets)


@pytest.fixture
def agents(engine: Engine) -> SlowAgents:
    """The engine's agents from now on."""
    made = SlowAgents()
    engine.backend = Backend(
        engine.world.database,
        all_actions(Sealer(), made),
        all_queries(),
        engine.deliverer,
        clock=engine.world.clock,
        roles=Roles({"eve": Role.VIEWER}),
    )
    return made


async def added(engine: Engine) -> Params:
    host = await engine.world.host()
    return AddFenceDevice(host_id=host, name="bmc", agent="fence_ipmilan", options={"ip": "::1"})


async def changed(engine: Engine) -> Params:
    device = await engine.world.device(await engine.world.host())
    await engine.world.put("fence_device", device, secrets=Sealer().seal({}))
    return EditFenceDevice(fence_device_id=device, options={"ip": "::1"})


Way = Callable[[Backend, Params], Awaitable[object]]
WAYS: dict[str, Way] = {
    "one": lambda backend, wish: backend.run_action(wish, PERSON),
    "many": lambda backend, wish: backend.run_multiple_actions([wish], PERSON),
    "dry": lambda backend, wish: backend.dry_run(wish, PERSON),
    "many dry": lambda backend, wish: backend.dry_run_multiple([wish], PERSON),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wish", [added, changed])
async def test_nobody_waits_while_an_agent_tells_its_options(
    engine: Engine, agents: SlowAgents, wish: Callable[[Engine], Awaitable[Params]], way: str
) -> None:
    asked = await wish(engine)
    vm = await engine.world.vm()
    slow = asyncio.ensure_future(WAYS[way](engine.backend, asked))
    async with asyncio.timeout(20):
        await agents.gate.reached.wait()
        await engine.act(StartVm(vm_id=vm))
    agents.gate.open()
    await slow


async def test_a_change_that_is_not_about_the_agent_does_not_ask_it(
    engine: Engine, agents: SlowAgents
) -> None:
    device = await engine.world.device(await engine.world.host())
    agents.silent = True
    await engine.act(EditFenceDevice(fence_device_id=device, deadline_s=3.5))
    assert (await engine.world.get("fence_device", device))["deadline_s"] == 3.5


async def test_no_agent_is_asked_for_somebody_who_is_denied(
    engine: Engine, agents: SlowAgents
) -> None:
    wish = await added(engine)
    agents.gate.open()
    with pytest.raises(Denied, match="PERMISSION_DENIED"):
        await engine.act(wish, principal="eve")
    assert not agents.gate.reached.is_set()

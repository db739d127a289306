"""A monitor over the real store, with hosts and power controllers that do as they are told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from activities.ports import Claim
from domain.errors import EngineError, NoAnswer, Unavailable
from domain.inventory import FenceDevice, PowerReading
from domain.operations import WorkflowState
from domain.profiles import Timing
from domain.readings import DomainState, GuestStats, HostReading, Knock
from engine.actions.base import Action
from engine.actions.hosts import ActivateHostAction, RecoverHostAction
from engine.backend import Backend, Deliverer
from engine.records.watching import WatchRecords
from store import observations, pages
from store.database import Database, Propagation, Work
from store.pages import Slice
from store.rows import Row
from tests.store.world import World
from worker.monitor import Monitor

T = TypeVar("T")
WAIT_S = 30.0
SOON = Timing(poll_s=0.02, poll_deadline_s=5.0, non_responsive_after_s=0.2)
NEVER = Timing(poll_s=0.02, poll_deadline_s=5.0, non_responsive_after_s=3600.0)
SILENT = NoAnswer("HOST_SILENT", "nothing comes back")
REFUSED = NoAnswer("HOST_PORT_REFUSED", "nobody listens")
GUEST = GuestStats(vm_id=UUID(int=7), name="db", state=DomainState.RUNNING, memory_kib=64)


def reading(mark: int | None = 1, autostart: tuple[str, ...] | None = None) -> HostReading:
    figures = {"memory_total_mib": 1024, "memory_free_mib": 512, "cpus": 4, "took_s": 0.001}
    return HostReading(guests=(GUEST,), boot_mark=mark, autostart=autostart, **figures)


class Hosts:
    """Fits the monitor's part of `Hypervisor`: each host answers as it was told, at once."""

    def __init__(self) -> None:
        self.answers: dict[str, HostReading | EngineError] = {}
        self.polls: Counter[str] = Counter()
        self.doors: dict[str, Knock] = {}
        self.knocks: Counter[str] = Counter()

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        self.polls[uri] += 1
        answer = self.answers.get(uri, reading())
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def session(self, uri: str, deadline_s: float) -> Any:
        raise AssertionError("a monitor opens no session")

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        self.knocks[uri] += 1
        return self.doors.get(uri, Knock.SILENT)

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        raise AssertionError("a monitor asks for no machine")


class Power:
    """Fits `PowerSwitch`; the monitor may only read."""

    def __init__(self) -> None:
        self.readings: dict[str, PowerReading] = {}
        self.asked: Counter[str] = Counter()
        self.answering = asyncio.Event()
        self.answering.set()

    async def read(self, device: FenceDevice) -> PowerReading:
        self.asked[device.name] += 1
        await self.answering.wait()
        return self.readings.get(device.name, PowerReading.ON)

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        raise AssertionError("a monitor asks for no machine")

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        raise AssertionError("a monitor cuts no power")

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        raise AssertionError("a monitor switches nothing on")


class CutDatabase(Database):
    """A database that can be away."""

    away = False

    async def write(self, work: Work[T], propagation: Propagation = Propagation.REQUIRED) -> T:
        self._check()
        return await super().write(work, propagation)

    async def read(self, work: Work[T]) -> T:
        self._check()
        return await super().read(work)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("DATABASE_UNAVAILABLE", "the database does not answer")


class Delivered:
    """Notes which workflows were to be started."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []

    async def deliver(self, operation_id: UUID) -> None:
        self.ids.append(operation_id)


class Scene:
    """One world with one host `h1` and its controller `bmc1`, and a monitor that watches it."""

    def __init__(self, database: CutDatabase) -> None:
        self.database, self.hosts, self.power = database, Hosts(), Power()
        self.world = World(database)
        self.delivered = Delivered()
        self.host_id = UUID(int=0)

    async def build(self) -> "Scene":
        await self.world.build()
        self.host_id = await self.world.host()
        await self.world.device(self.host_id)
        return self

    @property
    def polls(self) -> int:
        return self.hosts.polls["qemu+tcp://h1/system"]

    def answer(self, what: HostReading | EngineError, name: str = "h1") -> None:
        self.hosts.answers[f"qemu+tcp://{name}/system"] = what

    @asynccontextmanager
    async def watched(self, deliverer: Deliverer | None = None) -> AsyncIterator[None]:
        """The monitor runs for the block, and must not have ended by itself."""
        actions: list[Action[Any, Any]] = [RecoverHostAction(), ActivateHostAction()]
        backend = Backend(self.database, actions, [], deliverer or self.delivered)
        records = WatchRecords(self.database)
        task = asyncio.create_task(Monitor("m1", records, backend, self.hosts, self.power).run())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait({task})
            await backend.close()

    async def state(self) -> str:
        found: str = (await self.world.get("host", self.host_id))["state"]
        return found

    async def incidents(self) -> list[Row]:
        rows, _more = await self.world.do(pages.page, pages.incidents(), Slice(10))
        return rows

    async def incident(self) -> Row:
        """The one incident, once it is there."""
        await until(self.incidents)
        (found,) = await self.incidents()
        return found

    async def operations(self) -> list[Row]:
        rows, _more = await self.world.do(pages.page, pages.operations(), Slice(10))
        return rows

    async def seen(self) -> Row:
        (row,) = await self.world.do(observations.latest, self.host_id)
        return row

    async def rounds(self, count: int) -> None:
        """Wait for so many more polls of the host."""
        target = self.polls + count
        await until(lambda: self.polls >= target)

    async def rows(self, table: sa.Table) -> list[Row]:
        async def work(connection: Any) -> list[Row]:
            return [dict(row) for row in (await connection.execute(table.select())).mappings()]

        return await self.database.read(work)


async def until(holds: Callable[[], object | Awaitable[object]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WAIT_S):
        while True:
            value = holds()
            if await value if isinstance(value, Awaitable) else value:
                return
            await asyncio.sleep(0.01)


class DeadTemporal:
    """Takes no start, until it is told to."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.dead = True

    async def start(
        self, workflow: str, order: Row, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        self._refuse()
        self.started.append(wid)

    async def cancel(self, wid: str) -> None:
        self._refuse()

    async def signal(self, wid: str, name: str) -> None:
        self._refuse()

    async def raise_priority(self, wid: str, priority: int) -> None:
        self._refuse()

    async def describe(self, wid: str) -> WorkflowState:
        self._refuse()
        return WorkflowState.RUNNING if wid in self.started else WorkflowState.UNKNOWN

    def _refuse(self) -> None:
        if self.dead:
            raise Unavailable("TEMPORAL_UNAVAILABLE", "nobody listens")

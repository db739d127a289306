"""One scenario under way: the stage, the person at the desk, and what is noted on the way.

The person does what the engine leaves to people and the scenario takes for granted: a host that is
on and linked again is activated, a VM that is wanted at its first start is started where it lies
once all hosts that are on are in service, or, where the engine has no place for it there, wherever
it has one. VMs are started one by one, in the scenario's order: each is asked for once the one
before it has its place, so that a start sees what its rules bind it to.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from domain.errors import EngineError
from engine.actions.base import Params
from engine.actions.hosts import ActivateHost
from engine.actions.maintain_host import MaintainHost, MaintainHostAction
from engine.actions.migrate_vm import MigrateVm
from engine.actions.operations import CancelOperation
from engine.actions.vm_config import EditVm
from engine.actions.vms import StartVm, StopVm
from simulator.rows import OPEN, Row
from simulator.scenarios.format import Scenario
from simulator.scenarios.world import Scene
from simulator.stage import Stage
from simulator.world.network import Net

LOOK_S = 0.5
"""How often the person looks whether something is to be done."""

PATIENCE_S = 60.0
"""How long a VM's own host is waited for while others are up, before it is started elsewhere."""

PLACED_S = 0.05
"""How often is looked whether a start has its place: a claim is a transaction or two."""

AGAIN_S = 10.0
"""Until an activation that failed is tried again."""

OUT_OF_SERVICE = frozenset({"down", "non_operational", "maintenance", "error"})
NO_ROOM = "NO_ROOM"
BY_A_PERSON = (NO_ROOM, "VMS_CANNOT_MOVE")
"""Reasons to wait that the scenario itself has to take away."""


class Play:
    """See the module. Names of hosts and VMs are the scenario's."""

    def __init__(self, stage: Stage, scenario: Scenario, scene: Scene) -> None:
        self.stage = stage
        self.scenario = scenario
        self.scene = scene
        self.vms = dict(scene.vms)  # grows when a VM is added
        self.places = {name: vm.host for name, vm in scenario.vms.items()}
        self.wanted: dict[str, bool] = {}
        self.faults: list[tuple[float, str]] = []
        self.unsupported: dict[str, None] = dict.fromkeys(scene.unsupported)
        self.notes: list[str] = []
        self.kept: dict[str, None] = {}  # hosts that are to stay out of service
        self.resting = False
        self.began_s = stage.loop.time()
        self._activating: dict[str, float] = {}  # not to be tried before
        self._turn = asyncio.Lock()  # whose VM is being given its place
        self._under_way: dict[asyncio.Task[None], None] = {}

    @property
    def now_s(self) -> float:
        """Virtual seconds since the scenario began."""
        return self.stage.loop.time() - self.began_s

    @property
    def busy(self) -> bool:
        """Whether the person is in the middle of something."""
        return bool(self._under_way)

    def lacks(self, what: str) -> None:
        """Name something that the engine does not have."""
        self.unsupported[what] = None

    def note(self, text: str) -> None:
        """Keep a sentence for the reader of the report."""
        self.notes.append(f"{self.now_s:.1f} s: {text}")

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the person do something while the scenario goes on."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stage.defects.append(error)

    # What is so now

    def host_row(self, host: str) -> Row:
        """A host as the engine has it."""
        return self.stage.rows.find("host", self.scene.hosts[host])

    def vm_id(self, vm: str) -> UUID:
        """A VM's id."""
        found: UUID = self.stage.rows.find("vm", self.vms[vm])["id"]
        return found

    def well(self, host: str) -> bool:
        """Whether a host is on and linked, as somebody beside it sees it."""
        name = self.scene.hosts[host]
        linked = self.stage.centre.networks[Net.MANAGEMENT].answers("engine-1", name)
        return linked and self.stage.centre.hosts[name].answers

    def in_service(self, host: str) -> bool:
        """Whether a host is well, and the engine has it in service."""
        return self.well(host) and bool(self.host_row(host)["state"] == "up")

    def open_operations(self) -> list[Row]:
        """What is not at its end."""
        marks = ", ".join("?" * len(OPEN))
        return self.stage.rows.table("operation", f"state IN ({marks})", *OPEN)

    # What the person does

    async def ask(self, params: Params) -> UUID | None:
        """Ask for an action; None where the engine refuses it, which is noted."""
        try:
            return await self.stage.act(params)
        except EngineError as error:
            self.note(f"{type(params).__name__} refused: {error.detail} ({error.code})")
            return None

    async def start(self, vm: str) -> None:
        """Start a VM where it lies, once that host is there."""
        self.wanted[vm] = True
        host = await self._home(vm)
        async with self._turn:
            if not self.wanted[vm]:
                return
            operation = await self._placed(vm, host)
        await self._ended_well(operation, waiting_is_an_end=True)

    async def stop(self, vm: str) -> None:
        """Stop a VM."""
        self.wanted[vm] = False
        await self._ended_well(await self.ask(StopVm(vm_id=self.vm_id(vm))))

    async def move(self, vm: str, host: str) -> None:
        """Stop a VM and start it on another host."""
        await self.stop(vm)
        self.places[vm] = host
        await self.start(vm)

    async def migrate(self, vm: str, host: str) -> None:
        """Move a VM that runs, as it runs; of any other it is only said where it lies."""
        self.places[vm] = host
        if self.stage.centre.copies(self.vm_id(vm)):
            wanted = MigrateVm(vm_id=self.vm_id(vm), host_id=self.host_row(host)["id"])
            await self._ended_well(await self.ask(wanted), waiting_is_an_end=True)

    async def maintain(self, host: str) -> None:
        """Drain a host; VMs that cannot move keep it waiting, which nobody waits for here."""
        self.kept[host] = None
        await self.ask(MaintainHost(host_id=self.host_row(host)["id"]))

    async def serve_again(self, host: str) -> None:
        """Bring a host back from maintenance, or give up what has not got there."""
        self.kept.pop(host, None)
        row = self.host_row(host)
        for op in self.open_operations():
            if (op["kind"], op["target_id"]) == (MaintainHostAction.kind, row["id"]):
                await self.ask(CancelOperation(operation_id=op["id"]))

    async def protect(self, vm: str, *, protected: bool) -> None:
        """Put a VM under automatic recovery, or take it out."""
        await self.ask(EditVm(vm_id=self.vm_id(vm), protected=protected))

    async def tend(self) -> None:
        """Activate whatever host is well and out of service, for ever."""
        while True:
            for host in self.scenario.hosts:
                due = self.stage.loop.time() >= self._activating.get(host, 0.0)
                if not self.resting and due and self._to_be_activated(host):
                    self._activating[host] = self.stage.loop.time() + AGAIN_S
                    self.later(self._activate(host))
            await asyncio.sleep(LOOK_S)

    def _to_be_activated(self, host: str) -> bool:
        out = self.host_row(host)["state"] in OUT_OF_SERVICE
        return self.well(host) and out and host not in self.kept

    async def _activate(self, host: str) -> None:
        await self._ended_well(await self.ask(ActivateHost(host_id=self.host_row(host)["id"])))

    async def _home(self, vm: str) -> str | None:
        home, waited_s = self.places.get(vm), 0.0
        while self.wanted[vm] and waited_s < PATIENCE_S:
            in_service = [host for host in self.scenario.hosts if self.in_service(host)]
            if not self._on_its_way():
                if home in in_service:
                    return home
                if in_service and home not in self.scenario.hosts:
                    return None
            waited_s += LOOK_S if in_service else 0.0
            await asyncio.sleep(LOOK_S)
        return home if home in self.scenario.hosts and self.in_service(home) else None

    def _on_its_way(self) -> bool:
        """Whether a host is being brought into service: whoever starts VMs waits for it."""
        hosts = (host for host in self.scenario.hosts if host not in self.kept)
        return any(self.well(host) and not self.in_service(host) for host in hosts)

    async def _placed(self, vm: str, host: str | None) -> UUID | None:
        """Ask for a VM's start; returns once it has a place, has ended, or waits for one."""
        host_id = None if host is None else self.host_row(host)["id"]
        # Where a start will be refused the engine may go on elsewhere, as the peer's manager does.
        fixed = vm not in self.scene.refused_starts
        where = {"host_id" if fixed else "prefer_id": host_id}
        operation = await self.ask(StartVm(vm_id=self.vm_id(vm), **where))
        if operation is None:
            return None
        await self._until_placed(vm, operation)
        waits = self.stage.rows.operation(operation)["reason_code"] == NO_ROOM
        if host is None or not waits:
            return operation
        self.note(f"{vm} has no place on {host}: {self._waits_for(operation)}")
        await self.ask(CancelOperation(operation_id=operation))
        await self._ended_well(operation)
        return await self._placed(vm, None)

    async def _until_placed(self, vm: str, operation: UUID) -> None:
        rows, vm_id = self.stage.rows, self.vm_id(vm)
        while not rows.ended(operation):
            waits = rows.operation(operation)["reason_code"] == NO_ROOM
            if waits or any(run["vm_id"] == vm_id for run in rows.table("vm_run", "active = 1")):
                return
            await asyncio.sleep(PLACED_S)

    def _waits_for(self, operation: UUID) -> Any:
        return self.stage.rows.operation(operation)["waiting_for"]

    async def _ended_well(self, operation: UUID | None, *, waiting_is_an_end: bool = False) -> bool:
        """Wait for an operation's end, or until it waits for room; whether it succeeded."""
        if operation is None:
            return False
        rows = self.stage.rows
        while not rows.ended(operation):
            if waiting_is_an_end and rows.operation(operation)["reason_code"] == NO_ROOM:
                return False
            await asyncio.sleep(LOOK_S / 2)
        row = rows.operation(operation)
        if row["state"] not in ("succeeded", "cancelled"):
            problem = (row["problem"] or {}).get("detail", row["state"])
            self.note(f"{row['kind']} {row['target_name']} {row['state']}: {problem}")
        return bool(row["state"] == "succeeded")

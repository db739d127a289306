"""Brings a plan's faults onto a stage: at their times, or behind the event that they wait for.

What a fault does, it does in no process's name: it goes on when a process is killed. What was
broken and is not healed yet is known, so that `heal_all` leaves nothing behind.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from domain.context import ActionContext
from domain.errors import EngineError
from engine.actions.base import Params
from simulator.engine import Running
from simulator.faults.plan import Fault, Plan
from simulator.loop import nobody
from simulator.stage import PERSON, Stage
from simulator.tape import Recorder
from simulator.world.network import Net
from simulator.world.storage import StorageState

ANSWER_S = 40.0
"""How long whoever asks the engine for something waits; the process may have died."""

Deed = Callable[["Troubles", Fault], None]


def nothing(_troubles: "Troubles", _fault: Fault) -> None:
    """For what heals by itself, or is no state."""


@dataclass(frozen=True)
class Kind:
    """What a kind of fault does, and how it heals."""

    does: str
    apply: Deed
    heal: Deed = nothing
    outside: bool = False  # of the promised fault model


class Clocks(dict[str, Running]):
    """The engine's processes; each new one shows its machine's time."""

    def __init__(self, running: dict[str, Running]) -> None:
        super().__init__(running)
        self.skews: dict[str, timedelta] = {}

    def __setitem__(self, name: str, made: Running) -> None:
        super().__setitem__(name, made)
        process = made.process
        process.clock_skew = self.skews.get(process.machine, timedelta(0))

    def jump(self, machine: str, skew: timedelta) -> None:
        """Set a machine's clock, for what runs there now and later."""
        self.skews[machine] = skew
        for made in self.values():
            if made.process.machine == machine:
                made.process.clock_skew = skew


@dataclass
class Troubles:
    """See the module. `known` is the menu."""

    stage: Stage
    recorder: Recorder
    known: dict[str, Kind]
    injected: Counter[str] = field(default_factory=Counter)
    touched: dict[UUID, str] = field(default_factory=dict)  # VMs changed past the engine, and how
    refused: Counter[str] = field(default_factory=Counter)  # what people asked for in vain

    def __post_init__(self) -> None:
        self._active: dict[int, Fault] = {}
        self._waiting: list[tuple[int, Fault]] = []
        self.over = False  # everything was healed
        self._began_s = self.stage.loop.time()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.clocks = Clocks(self.stage.engine.running)
        self.stage.engine.running = self.clocks
        self.recorder.tape.listeners.append(self._seen)

    def begin(self, plan: Plan) -> None:
        """Set every fault of a plan on its way."""
        self._began_s = self.stage.loop.time()
        for number, fault in enumerate(plan.faults):
            if fault.after_event is None:
                self.later(fault.at_s, self._inject, number, fault)
            else:
                self._waiting.append((number, fault))

    def heal_all(self) -> None:
        """Heal what is broken, in the order in which it broke, and what may be left of it."""
        self.over = True
        self._waiting.clear()
        for number in tuple(self._active):
            self._heal(number)
        stage, centre = self.stage, self.stage.centre
        for net in Net:
            centre.networks[net].heal_all()
        centre.set_storage(StorageState.OK)
        for machine in sorted(stage.engine.dark):
            stage.engine.regain_machine(machine)
        for machine in sorted(stage.engine.still):
            stage.engine.thaw_machine(machine)
        for made in tuple(self.clocks.values()):
            if made.process.frozen:
                made.process.thaw(stage.loop)
        for machine in tuple(self.clocks.skews):
            self.clocks.jump(machine, timedelta(0))
        stage.engine.database_up = True
        if not stage.server.up:
            stage.server.switch(True)

    def later(self, seconds: float, do: Callable[..., None], *given: Any) -> None:
        """Do something after a time, in no process's name; not once everything was healed."""

        def unless_over() -> None:
            if not self.over:
                do(*given)

        self.stage.loop.call_later(seconds, unless_over, context=nobody())

    def ask(self, params: Params, context: ActionContext = PERSON) -> None:
        """Ask the engine for something; what it answers is kept in the timeline."""
        self.people(self.answer_to(params, context))

    def people(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something go on beside everything else."""
        task = self.stage.loop.create_task(work, context=nobody())
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def answer_to(self, params: Params, context: ActionContext = PERSON) -> UUID | None:
        """The operation; None when it was refused, or nobody answered in time."""
        engine, name = self.stage.engine, type(params).__name__
        apis = (made for made in engine.running.values() if made.role == "api")
        api = next((made for made in apis if not made.process.frozen), None)
        if api is None:
            self.refused[f"{name} nobody there"] += 1
            return None
        asked = self.stage.loop.spawn(api.process, api.backend.run_action(params, context))
        await asyncio.wait({asked}, timeout=ANSWER_S)
        if not asked.done():
            self.refused[f"{name} no answer"] += 1
            return None
        error = asked.exception()
        if isinstance(error, EngineError):
            self.refused[f"{name} {error.code}"] += 1
            self.stage.trace("refused", name, code=error.code, why=error.detail)
            return None
        if error is not None:
            self.stage.defects.append(error)
            return None
        receipt = asked.result()
        self.stage.trace("asked", name, principal=context.principal)
        found: UUID = receipt.operation_id
        return found

    def _inject(self, number: int, fault: Fault) -> None:
        self.injected[fault.kind] += 1
        self.stage.trace("fault", fault.kind, of=fault.subject, **fault.args)
        self._active[number] = fault
        self.known[fault.kind].apply(self, fault)
        if fault.lasts_s is not None:
            self.later(fault.lasts_s, self._heal, number)

    def _heal(self, number: int) -> None:
        fault = self._active.pop(number, None)
        if fault is not None:
            self.stage.trace("healed", fault.kind, of=fault.subject)
            self.known[fault.kind].heal(self, fault)

    def _seen(self, at_s: float, kind: str, facts: dict[str, Any]) -> None:
        if not self._waiting:
            return
        names = (kind, f"{kind}:{facts.get('subject', facts.get('vm', facts.get('host')))}")
        now_s = at_s - self._began_s
        for waiting in tuple(self._waiting):
            if waiting[1].after_event in names and waiting[1].since_s <= now_s:
                self._waiting.remove(waiting)
                self.later(waiting[1].at_s, self._inject, *waiting)

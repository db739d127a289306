"""A stage under faults, for tests: everything stands, and time is let pass by hand."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from simulator.faults.menu import MENU
from simulator.faults.plan import Fault, Plan
from simulator.faults.troubles import Troubles
from simulator.invariants.watch import Watch
from simulator.quiet import quiet
from simulator.setup import Setup
from simulator.stage import Stage, on_stage, set_stage
from simulator.tape import Recorder
from simulator.world.host import VirtualHost


class Scene:
    """One stage with its troubles."""

    def __init__(
        self, stage: Stage, run: Callable[[Any], Any], caught: list[BaseException]
    ) -> None:
        self.stage = stage
        self.caught = caught  # what the engine's processes have logged as defects
        self.recorder = Recorder(stage)
        self.watch = Watch(stage, self.recorder)
        self.troubles = Troubles(stage, self.recorder, MENU)
        self._run = run

    @property
    def h1(self) -> VirtualHost:
        """The host that faults are about."""
        return self.stage.centre.hosts["h1"]

    @property
    def kinds(self) -> list[str]:
        """Kinds of the events so far."""
        return [kind for _, kind, _ in self.stage.events]

    def vm(self, name: str) -> dict[str, Any]:
        """One VM's row."""
        return self.stage.rows.find("vm", name)

    def start(self) -> None:
        """Bring the engine up."""
        self.stage.engine.start()
        self.passes(1.0)

    def inject(self, *faults: Fault) -> None:
        """Let these faults happen."""
        self.troubles.begin(Plan(pattern="test", faults=faults))
        self.passes(0.01)

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self._run(asyncio.sleep(seconds))

    def until(self, holds: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Let time pass until something holds."""
        self._run(self.stage.until(holds, "it never came true", limit_s))

    def does(self, work: Any) -> Any:
        """Run something to its end."""
        return self._run(work)


@contextmanager
def scene(setup: Setup | None = None, seed: int = 1) -> Iterator[Scene]:
    """A scene that nothing has happened on yet; its engine is not running."""
    caught: list[BaseException] = []
    with quiet(caught):
        stage = set_stage(seed, setup or Setup.small())
        with on_stage(stage) as run:
            yield Scene(stage, run, caught)

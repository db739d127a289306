"""One workflow task on a worker: activations until nothing local is left, then a report.

    taken -> (activated -> a local activity ends)* -> reported
                                   \\ its limit is near -> reported, and a task of the same goes on

Races  The server may give the task up while local activities run, since its limit has passed or the
       run was ended. Whoever comes to the instance next is not this task any more: `_Lost`.
       A process that was frozen may begin a task that was given up: it goes on from where the run
       was then, local activities and all, and its report is refused.
"""

from typing import Any, Protocol

from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob

from simulator.temporal.activity import Activities
from simulator.temporal.commands import closes
from simulator.temporal.instance import Instance, Turn
from simulator.temporal.local import LocalSteps
from simulator.temporal.run import Begun, Run

TASK_SHARE = 0.8
"""Part of a task's limit after which the SDK reports what it has while local activities run on."""

Jobs = list[WorkflowActivationJob]


class Host(Protocol):
    """The worker, as its tasks need it."""

    activities: Activities

    def ready(self, run: Run, begun: Begun) -> Instance:
        """The run's instance, made or rebuilt if need be."""
        ...

    def has(self, run: Run, instance: Instance) -> bool:
        """Whether an instance is still the run's one here."""
        ...

    def activation(self, run: Run, jobs: Jobs) -> WorkflowActivation:
        """What tells a workflow of something."""
        ...

    def forget(self, run: Run) -> None:
        """Throw the run's instance away."""
        ...

    def put_back(self, run: Run, instance: Instance) -> None:
        """No task uses it any more."""
        ...

    async def heard(self) -> bool:
        """Whether a report came through, after some tries."""
        ...


class _Lost(Exception):
    """The task is somebody else's by now."""


class WorkflowTask:
    """See the module. `server` is the one that gave it out."""

    def __init__(self, host: Host, server: Any, run: Run, begun: Begun) -> None:
        self._host = host
        self._server = server
        self._run = run
        self._begun = begun
        self._jobs = begun.jobs
        self._turns: list[Turn] = []
        self._local = LocalSteps(host.activities, run, server.loop)
        self._instance = host.ready(run, begun)

    async def carry_out(self) -> None:
        """From the first activation to the report."""
        self._instance.busy = True
        self._local.resume(self._run.turns[: self._begun.known])
        try:
            while not await self._through():
                await self._go_on()
            await self._report()
        except _Lost:
            return
        finally:
            self._local.drop()

    async def _through(self) -> bool:
        """Go as far as it goes; False when the limit comes first."""
        loop = self._server.loop
        deadline_s = loop.time() + TASK_SHARE * self._run.start.task_timeout_s
        self._activate()
        while self._local.open and not self._closed():
            job = await self._local.next(deadline_s)
            self._still_here()
            if job is None:
                return False
            self._jobs = [job]
            self._activate()
        return True

    def _activate(self) -> None:
        while self._jobs:
            activation = self._host.activation(self._run, self._jobs)
            self._turns.append(Turn(activation, self._instance.activate(activation)))
            self._instance.seen += 1
            self._jobs = [] if self._closed() else self._local.begin(self._turns[-1].commands)

    def _closed(self) -> bool:
        return bool(self._turns) and closes(self._turns[-1])

    async def _go_on(self) -> None:
        """Report what there is, and take the next task of the run in the same breath."""
        heard = await self._host.heard()
        self._still_here()
        begun = (
            self._server.task_goes_on(self._run, self._begun.number, self._turns) if heard else None
        )
        if begun is None:
            raise self._given_up()
        self._begun, self._jobs, self._turns = begun, begun.jobs, []

    async def _report(self) -> None:
        if not await self._host.heard():
            raise self._given_up()
        # In the server's name: the report is on its way, whatever becomes of this worker.
        self._server.later(self._server.latency("report"), self._arrives)

    def _arrives(self) -> None:
        run = self._run
        accepted = self._server.task_completed(run, self._begun.number, self._turns)
        if self._host.has(run, self._instance):
            if accepted and run.open:
                self._instance.seen = len(run.turns)  # not all that was done is recorded
                self._host.put_back(run, self._instance)
            else:
                self._host.forget(run)

    def _still_here(self) -> None:
        if not self._host.has(self._run, self._instance):
            raise _Lost

    def _given_up(self) -> _Lost:
        if self._host.has(self._run, self._instance):
            self._host.forget(self._run)
        return _Lost()

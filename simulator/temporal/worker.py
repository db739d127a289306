"""A worker process: takes tasks from the server's queues and runs the real code.

Workflow tasks run the SDK's own workflow instances; local activities belong to the task that asked
for them, and their results are the server's only once the task is completed, as with the SDK.
Activities run in the interceptors and the context that the SDK's worker gives them.

Races  The process may die at any await: then its tasks are the server's to give out again, what
       they had changed in the world stays, and its instances are rebuilt elsewhere by replay.
       A frozen one still gets tasks, as many as it had polls open: nobody does them until a limit
       passes. An instance is thrown away under a task that the server has given up meanwhile.
"""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.worker import Interceptor
from temporalio.workflow import _Definition

from simulator.loop import Process
from simulator.temporal import failures
from simulator.temporal.activity import Activities
from simulator.temporal.errors import QueryFailed
from simulator.temporal.instance import Instance, Turn
from simulator.temporal.queues import TaskQueue
from simulator.temporal.run import SUGGEST_NEW_AFTER, Begun, Run
from simulator.temporal.server import Server
from simulator.temporal.steps import Step
from simulator.temporal.task import Jobs, WorkflowTask

REPORT_FOR_S = 10.0
"""How long the SDK tries to bring a report to a server that it does not reach."""

ASK_AGAIN_S = 0.2
"""How long until a report or a poll that did not come through is tried again."""

POLLS = 5
"""How many polls of each kind the SDK keeps open (its default)."""

Reach = Callable[[], bool]


class VirtualWorker:
    """One worker on one queue; see the module. Options are named as the SDK's worker's.

    `reaches`: whether the server is heard from the worker's machine just now.
    """

    def __init__(  # noqa: PLR0913
        self,
        server: Server,
        process: Process,
        queue: str,
        *,
        workflows: Sequence[type] = (),
        activities: Sequence[Any] = (),
        interceptors: Sequence[Interceptor] = (),
        workflow_slots: int = 50,
        activity_slots: int = 32,
        cached: int = 1000,
        release: int = 0,
        reaches: Reach = lambda: True,
    ) -> None:
        self._server = server
        self._loop = server.loop
        self.process = process
        self.own = TaskQueue(f"{process.name}-sticky")
        self._queue = queue
        self._workflows = {d.name: d for d in map(_Definition.must_from_class, workflows)}
        self.activities = Activities(server, activities, interceptors, self._hears)
        self._free = {"workflow": workflow_slots if workflows else 0, "activity": activity_slots}
        self._polls = dict.fromkeys(self._free, POLLS)
        self._cached = cached
        self._cache: OrderedDict[str, Instance] = OrderedDict()
        self._reaches = reaches
        self._context = contextvars.copy_context()
        self._asks = False
        self.release = release
        self._sources = (
            ("workflow", self.own),
            *(("workflow", server.workflow_queue(queue, up_to)) for up_to in range(release + 1)),
            ("activity", server.queue(queue)),
        )

    def start(self) -> None:
        """Begin to poll."""
        self._context = contextvars.copy_context()
        for _kind, queue in self._sources:
            queue.listen(self.look)
        self._server.workers.append(self)
        self.look()

    def bury(self) -> None:
        """Its process is dead: nothing polls any more, and its instances are gone."""
        for _kind, queue in self._sources:
            queue.leave(self.look)
        if self in self._server.workers:
            self._server.workers.remove(self)
        while self._cache:
            self._cache.popitem()[1].evict()

    def forget(self, run: Run) -> None:
        """Throw a run's instance away, under a task of its too; the next one rebuilds it."""
        if (instance := self._cache.pop(run.run_id, None)) is not None:
            instance.evict()
        if run.sticky is self:
            run.sticky = None

    def evict_all(self) -> None:
        """Throw every instance away, as a cache that is too small does: those at work after it."""
        for run_id, instance in tuple(self._cache.items()):
            if instance.busy:
                instance.doomed = True
            else:
                del self._cache[run_id]
                instance.evict()

    def look(self) -> bool:
        """There may be something to take; whether there was. The server gives it to open polls."""
        if self.process.dead or self._loop.over or not self._server.up:
            return False  # a server that comes back tells
        if not self._reaches():
            self._ask_again()
            return False
        if not self.process.frozen:
            self._polls = dict.fromkeys(self._free, POLLS)
        took = False
        for kind, queue in self._sources:
            # Nobody is there to close a frozen process's polls, or to open new ones.
            while self._free[kind] and self._polls[kind] and (task := queue.take()) is not None:
                self._polls[kind] -= self.process.frozen
                self._begin(kind, task)
                took = True
        return took

    def runs(self, run: Run) -> bool:
        """Whether it has the code of a run, and answers."""
        there = not (self.process.dead or self.process.frozen)
        known = run.start.workflow in self._workflows and run.release <= self.release
        return there and known and run.start.task_queue == self._queue

    def query(self, run: Run, name: str, *arguments: Any) -> Any:
        """Ask a run's workflow; what it changes meanwhile is its own affair."""
        if not run.turns:
            raise QueryFailed(f"{run.wid} has not begun yet")
        instance = self._cache.get(run.run_id)
        kept = instance is not None and (instance.busy or instance.seen == len(run.turns))
        if instance is None or not kept:
            instance = self._rebuilt(run, run.turns[0].activation, run.turns)
        answer = instance.query(name, failures.payloads.to_payloads(arguments)).respond_to_query
        if not kept:
            instance.evict()
        if answer.HasField("failed"):
            raise QueryFailed(f"{name}: {answer.failed.message}")
        return failures.from_payloads([answer.succeeded.response], None)[0]

    def _hears(self) -> bool:
        return self._server.up and self._reaches()

    def _ask_again(self) -> None:
        if not self._asks:
            self._asks = True
            self._loop.spawn(self.process, self._ask_later(), self._context.copy())

    async def _ask_later(self) -> None:
        await asyncio.sleep(ASK_AGAIN_S)
        self._asks = False
        self.look()

    def _begin(self, kind: str, task: Any) -> None:
        """The server counts a task as begun from here on, whatever becomes of it."""
        step = isinstance(task, Step)
        taken = self._server.steps.started(task) if step else self._server.task_taken(task)
        if taken is not None:
            if not step:
                self._server.worked_on_by(task, self.release)
            self._free[kind] -= 1
            context = self._context.copy()
            self._loop.spawn(self.process, self._occupied(kind, task, taken), context)

    async def _occupied(self, kind: str, task: Any, taken: Any) -> None:
        try:
            if isinstance(task, Step):
                await self._run_step(task, taken)
            else:
                await WorkflowTask(self, self._server, task, taken).carry_out()
        except Exception as error:  # noqa: BLE001 - a finding, told to whoever runs this
            if isinstance(task, Run):
                self.forget(task)
            self._server.defect(error)
        finally:
            self._free[kind] += 1
            self.look()

    async def _run_step(self, step: Step, attempt: int) -> None:
        outcome, beat = await self.activities.run(step, attempt, self._queue)
        if await self.heard():
            # In the server's name: the report is on its way, whatever becomes of this worker.
            delay_s = self._server.latency("report")
            self._server.later(delay_s, self._server.steps.completed, step, attempt, outcome, beat)

    # What its workflow tasks need of it.

    def ready(self, run: Run, begun: Begun) -> Instance:
        """The run's instance, as far as the server's record went when the task was taken."""
        found = self._cache.get(run.run_id)
        if found is not None and (found.busy or found.seen != begun.known):
            # Others have gone on with the run meanwhile.
            self._cache.pop(run.run_id).evict()
            found = None
        if found is None:
            turns = run.turns[: begun.known]
            first = turns[0].activation if turns else self.activation(run, begun.jobs)
            found = self._cache[run.run_id] = self._rebuilt(run, first, turns)
            self._make_room(run)
        self._cache.move_to_end(run.run_id)
        if run.has(begun.number):
            run.sticky = self
        return found

    def has(self, run: Run, instance: Instance) -> bool:
        """Whether an instance is still the run's one here."""
        return self._cache.get(run.run_id) is instance

    def put_back(self, run: Run, instance: Instance) -> None:
        """No task uses it any more."""
        instance.busy = False
        if instance.doomed:
            self.forget(run)
        self._make_room(None)

    async def heard(self) -> bool:
        """Whether the server hears a report, tried again for as long as the SDK does."""
        until_s = self._loop.time() + REPORT_FOR_S
        while not self._hears():
            if self._loop.time() >= until_s:
                return False
            await asyncio.sleep(ASK_AGAIN_S)
        return True

    def activation(self, run: Run, jobs: Jobs) -> WorkflowActivation:
        """What tells a workflow of something."""
        stamp = Timestamp()
        stamp.FromDatetime(self._loop.now())
        return WorkflowActivation(
            run_id=run.run_id,
            timestamp=stamp,
            history_length=run.events,
            continue_as_new_suggested=run.events > SUGGEST_NEW_AFTER,
            jobs=jobs,
        )

    def _rebuilt(self, run: Run, first: WorkflowActivation, turns: list[Turn]) -> Instance:
        made = Instance(self._workflows[run.start.workflow], first, self._queue)
        made.replay(turns)
        return made

    def _make_room(self, but: Run | None) -> None:
        """Throw away those that were used longest ago, none that a task uses."""
        for run_id, instance in tuple(self._cache.items()):
            if len(self._cache) <= self._cached:
                return
            if not instance.busy and (but is None or run_id != but.run_id):
                del self._cache[run_id]
                instance.evict()

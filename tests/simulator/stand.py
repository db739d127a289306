"""A test stand for virtual Temporal: one server, workers as asked for, nothing else.

Nothing takes time but what a test says, so all times are whole numbers.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from temporalio.common import Priority

from domain.operations import WorkflowState
from simulator.loop import Process, VirtualLoop
from simulator.temporal import failures
from simulator.temporal.run import Run, StartOf
from simulator.temporal.server import Server
from simulator.temporal.worker import VirtualWorker
from tests.simulator.toy_steps import Steps
from tests.simulator.toys import WORKFLOWS

QUEUE = "toys"
LIMIT_S = 5000.0


class Stand:
    """See the module."""

    def __init__(self, hops: dict[str, float] | None = None) -> None:
        self.loop = VirtualLoop()
        self.steps = Steps()
        self.traced: list[tuple[str, float, dict[str, Any]]] = []
        self.defects: list[BaseException] = []
        self.workers: list[VirtualWorker] = []
        self.server = Server(
            self.loop, random.Random(1), lambda what: (hops or {}).get(what, 0.0), self._trace
        )
        self.server.on_defect = self.defects.append

    def _trace(self, kind: str, _subject: str, **facts: Any) -> None:
        self.traced.append((kind, self.loop.time(), facts))

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """What was traced of one kind."""
        return [facts for each, _at, facts in self.traced if each == kind]

    def worker(
        self,
        name: str = "w1",
        *,
        queue: str = QUEUE,
        workflows: Sequence[type] = WORKFLOWS,
        steps: Steps | None = None,
        reaches: Callable[[], bool] = lambda: True,
        **options: int,
    ) -> VirtualWorker:
        """A process with one worker, which polls."""
        worker = VirtualWorker(
            self.server,
            Process(name, "m1"),
            queue,
            workflows=workflows,
            activities=(steps or self.steps).all(),
            reaches=reaches,
            **options,  # type: ignore[arg-type]
        )
        worker.start()
        self.workers.append(worker)
        return worker

    def kill(self, worker: VirtualWorker) -> None:
        """SIGKILL."""
        worker.process.kill()
        worker.bury()

    def start_of(self, workflow: Any, *arguments: Any, wid: str = "w", **more: Any) -> StartOf:
        """What a client starts a workflow with."""
        return StartOf(
            workflow=workflow if isinstance(workflow, str) else workflow.__name__,
            wid=wid,
            arguments=tuple(map(failures.to_payload, arguments)),
            task_queue=more.pop("queue", QUEUE),
            task_timeout_s=more.pop("task_timeout_s", 10.0),
            priority=more.pop("priority", Priority()),
            **more,
        )

    def start(self, workflow: Any, *arguments: Any, wid: str = "w", **more: Any) -> Run:
        """Start one."""
        return self.server.begin(self.start_of(workflow, *arguments, wid=wid, **more))

    async def ended(self, run: Run) -> Run:
        """The run, or the last one of its chain, once it has ended."""
        async with asyncio.timeout(LIMIT_S):
            newest = run
            while newest.open or newest.state is WorkflowState.CONTINUED:
                await asyncio.sleep(0.25)
                found = self.server.current(run.wid)
                assert found is not None
                newest = found
        return newest

    async def result(self, run: Run) -> Any:
        """What it gave."""
        found = await self.ended(run)
        assert found.state is WorkflowState.COMPLETED, (found.state, found.failure)
        assert found.result is not None
        return failures.from_payloads([found.result], None)[0]

    async def does(self, workflow: Any, *arguments: Any, **more: Any) -> Any:
        """Start one and give what it gave."""
        return await self.result(self.start(workflow, *arguments, **more))


@contextmanager
def stand(
    *, hops: dict[str, float] | None = None, defects: bool = False
) -> Iterator[tuple[Stand, Callable[[Awaitable[Any]], Any]]]:
    """A stand and what runs a coroutine on it; `defects`: whether the test looks at them itself."""
    made = Stand(hops)
    asyncio.set_event_loop(made.loop)
    try:
        yield made, made.loop.run_until_complete
        assert defects or made.defects == []
        assert made.loop.errors == []
    finally:
        for worker in made.workers:
            worker.bury() if worker in made.server.workers else None
        made.loop.clear()
        asyncio.set_event_loop(None)

"""Trials: one happy path with one fault in one step; many run side by side.

The cases are not picked by hand: they are every step of the recorded happy path of every workflow.
Most of a trial is waiting for limits of the server, so a file's trials run together, and each of
its tests looks at the result of one.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from store.rows import Row
from tests.faults import CRASHES, Fault, FaultAt
from tests.replay.golden import HAPPY, steps_of
from tests.workflow.bench import Bench, bench
from tests.workflow.far_world import served
from worker.temporal_get import ROOT

AT_ONCE = 6
WITHIN_S = 90.0


@dataclass(frozen=True)
class Case:
    """One fault in one step of one workflow."""

    workflow: str
    step: str
    fault: Fault

    def __str__(self) -> str:
        """As a test's id."""
        return f"{self.workflow}-{self.step}-{self.fault}".replace(" ", "-")


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    operation: Row
    children: list[Row]
    broken: list[str]
    struck: bool


def cases(faults: Iterable[Fault]) -> list[Case]:
    """Every step of every workflow with each fault."""
    return [
        Case(workflow, step, fault)
        for workflow, golden in sorted(HAPPY.items())
        for step in steps_of(golden)
        for fault in faults
    ]


async def run_all(
    wanted: Iterable[Case], address: str, made_from: Path, folder: Path
) -> dict[Case, Result | BaseException]:
    """Run trials side by side; the result or the error of each."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Result:
        async with turn, asyncio.timeout(WITHIN_S):
            return await _trial(case, address, made_from, folder)

    listed = list(wanted)
    results = await asyncio.gather(*(one(case) for case in listed), return_exceptions=True)
    return dict(zip(listed, results, strict=True))


async def _trial(case: Case, address: str, made_from: Path, folder: Path) -> Result:
    async with bench(address, made_from, folder) as made:
        await made.build("h1", "h2", "h3")
        await made.watcher.start()
        workers = killed if case.fault in CRASHES else _faulty
        async with workers(made, case, folder) as struck:
            operation = await HAPPY[case.workflow].scenario(made)
            await made.idle()
            return await _result(made, operation, struck.is_set())


async def _result(made: Bench, operation: UUID, struck: bool) -> Result:
    children = [
        row
        for kind in ("host.fence", "vm.start")
        for row in await made.children_of(operation, kind)
    ]
    return Result(await made.operation(operation), children, await made.broken(), struck)


class _Struck(FaultAt):
    """Tells when the fault has struck."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.workflow, case.step, case.fault)

    def is_set(self) -> bool:
        return self.hit


@asynccontextmanager
async def _faulty(made: Bench, case: Case, _folder: Path) -> AsyncIterator[_Struck]:
    fault = _Struck(case)
    async with made.workers([fault]):
        yield fault


@asynccontextmanager
async def killed(made: Bench, case: Case, folder: Path) -> AsyncIterator[asyncio.Event]:
    """A worker process that will die, and after its death workers of our own."""
    struck = asyncio.Event()
    socket = folder / f"{made.client.namespace}.sock"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(made.centre, socket))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.workflow.doomed"),
            *(made.client.service_client.config.target_host, made.client.namespace),
            *(made.database.url, str(socket), case.workflow, case.step, case.fault),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
        )

        async def take_over() -> None:
            if await child.wait() == -signal.SIGKILL:
                struck.set()
            async with made.workers():
                await asyncio.Event().wait()

        task = asyncio.create_task(take_over())
        try:
            yield struck
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if child.returncode is None:
                child.kill()
                await child.wait()


def check(result: Result | BaseException) -> None:
    """The fault struck, everything ended as if it had not, and no invariant is broken."""
    if isinstance(result, BaseException):
        raise result
    assert result.struck, "the fault missed, so nothing was tried"
    assert result.operation["state"] == "succeeded", result.operation["problem"]
    assert [row["state"] for row in result.children if row["state"] != "succeeded"] == []
    assert result.broken == []

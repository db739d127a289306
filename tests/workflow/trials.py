"""Trials: one recorded path with one fault in one step; many run side by side.

The cases are not picked by hand: they are every step of every recorded history of every workflow,
each in the first history that has it, the happy path before all others. A happy path has to succeed
with the fault; another has to end as it does without one, which is tried beside it. Most of a trial
is waiting for limits of the server, so a file's trials run together, and each of its tests looks at
the result of one.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.rows import Row
from tests.faults import CRASHES, Fault, FaultAt
from tests.replay.golden import ALL, HAPPY, Golden, steps_of
from tests.workflow.bench import POLICY, Bench, bench, relaying
from tests.workflow.far_world import served
from worker.temporal_get import ROOT

AT_ONCE = 6
"""Whose workers die: most of such a trial is waiting for limits of the server."""
IN_PROCESS_AT_ONCE = 3
"""Those that share one interpreter, which is what limits them: more only wait for each other."""
TRIED = POLICY.model_copy(
    update={
        "fence_tries": POLICY.fence_tries + 1,
        "connect_deadline_s": 10,
        "define_deadline_s": 10,
        "start_deadline_s": 20,
        "migrate_deadline_s": 20,
        "power_on_answer_s": 20,
        "off_read_back_s": 2,
        "knock_s": 2,
    }
)
"""The fault takes one try of a step that is tried a few times: as many are left as without it. And
what is asked on a machine this busy is answered late: no answer may be lost for that."""
ANSWERS_S = 10.0
"""How long a power controller is waited for."""
TRIAL_S = 10.0
"""What one trial takes at the most when all run side by side on a busy machine: the first test of a
file waits for all of them."""
WITHIN_S = 600.0


@dataclass(frozen=True)
class Case:
    """One fault in one step of one workflow."""

    golden: Golden
    step: str
    fault: Fault

    @property
    def workflow(self) -> str:
        """The kind of workflow whose step it is."""
        return self.golden.workflow

    def __str__(self) -> str:
        """As a test's id."""
        return f"{self.workflow}-{self.step}-{self.fault}".replace(" ", "-")


@dataclass(frozen=True)
class Result:
    """What came of a trial, and of the same without a fault; None: it has to succeed."""

    operation: Row
    children: list[Row]
    broken: list[str]
    struck: bool = True
    without: "Result | None" = None

    @property
    def end(self) -> tuple[Any, ...]:
        """How everything ended."""
        rows = (self.operation, *sorted(self.children, key=lambda row: str(row["target_name"])))
        return tuple((row["kind"], row["target_name"], row["state"]) for row in rows)


def cases(faults: Iterable[Fault]) -> list[Case]:
    """Every step of every workflow with each fault."""
    first: dict[tuple[str, str], Golden] = {}
    for golden in (*HAPPY.values(), *ALL):
        for step in steps_of(golden):
            first.setdefault((golden.workflow, step), golden)
    kinds = tuple(faults)
    return [
        Case(golden, step, fault)
        for (_workflow, step), golden in sorted(first.items(), key=lambda item: item[0])
        for fault in kinds
    ]


def patience_s(wanted: Sequence[Case]) -> float:
    """How long these trials may take together."""
    return TRIAL_S * len(wanted)


async def run_all(
    wanted: Iterable[Case], address: str, made_from: Path, folder: Path, at_once: int = AT_ONCE
) -> dict[Case, Result | BaseException]:
    """Run trials side by side, so many at once; the result or the error of each."""
    turn = asyncio.Semaphore(at_once)

    async def plain(golden: Golden) -> Result:
        stage = _stage(address, made_from, folder)
        async with turn, asyncio.timeout(WITHIN_S), stage as made, made.workers():
            return await _played(made, golden)

    listed = list(wanted)
    other = dict.fromkeys(c.golden for c in listed if c.golden is not HAPPY[c.workflow])
    without = {golden: asyncio.create_task(plain(golden)) for golden in other}

    async def one(case: Case) -> Result:
        async with turn, asyncio.timeout(WITHIN_S):
            found = await _trial(case, address, made_from, folder)
        task = without.get(case.golden)
        return found if task is None else replace(found, without=await task)

    results = await asyncio.gather(*(one(case) for case in listed), return_exceptions=True)
    await asyncio.gather(*without.values(), return_exceptions=True)
    return dict(zip(listed, results, strict=True))


@asynccontextmanager
async def _stage(address: str, made_from: Path, folder: Path) -> AsyncIterator[Bench]:
    async with bench(address, made_from, folder) as made:
        made.device_deadline_s = ANSWERS_S
        await made.build("h1", "h2", "h3")
        await made.watcher.start()
        # A busy server takes a start or a cancel late, and what a process has accepted when it dies
        # would be the relay's anyway.
        async with relaying(made):
            yield made


async def _trial(case: Case, address: str, made_from: Path, folder: Path) -> Result:
    async with _stage(address, made_from, folder) as made:
        workers = killed if case.fault in CRASHES else _faulty
        async with workers(made, case, folder) as struck:
            found = await _played(made, case.golden)
            return replace(found, struck=struck.is_set())


async def _played(made: Bench, golden: Golden) -> Result:
    operation = await golden.scenario(made)
    await made.idle()
    children = [
        row
        for kind in ("host.fence", "vm.start")
        for row in await made.children_of(operation, kind)
    ]
    return Result(await made.operation(operation), children, await made.broken())


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
    assert result.broken == []
    if result.without is not None:
        assert result.end == result.without.end
        return
    assert result.operation["state"] == "succeeded", result.operation["problem"]
    assert [row["state"] for row in result.children if row["state"] != "succeeded"] == []

"""Looking whether VMs that others depend on are ready, see `domain.readiness`.

One look for all of a recovery at a time: between two looks its workflow waits, and no step is at
work. Repeatable: each VM is looked up anew at each look, so it may have been moved or started
elsewhere meanwhile, and all times count from when it was read back as running.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol
from uuid import UUID

import structlog
from temporalio import activity

from activities.ports import Hypervisor
from activities.waiting import until
from domain.base import Frozen
from domain.errors import EngineError
from domain.next_looks import READY_LOOK_S, ready_look_s
from domain.orders import RunRef
from domain.readiness import ReadyRule, ReadyWhen
from domain.readings import AgentState

log = structlog.get_logger()

AT_ONCE_ON_A_HOST = 8
"""Guests of one host that one look asks at a time. Higher: libvirtd or sshd refuses connections.
Lower: a look at many takes longer."""

TURN_WITHIN_S = 15.0
"""How long one look lets a guest wait for its turn; those that get none are asked in a later one.
Together with the next one it stays within the step's own limit."""

ASK_WITHIN_S = 40.0
"""How long a question may take that no deadline of its own ends. Lower: one that would still be
answered is cut, and its connection counts as hung."""

SHOWN = 3
"""Names in the sentence of a look; all the others are counted."""


class ReadyOrder(Frozen):
    """Wait for one VM in the recovery of an incident."""

    operation_id: UUID
    incident_id: UUID
    vm_id: UUID
    vm_name: str
    rule: ReadyRule
    deadline_s: float  # of one look


class ReadyFound(Frozen):
    """How it ended; `why` in words."""

    ready: bool
    why: str


class ReadyWait(Frozen):
    """One VM that is waited for; `waited_s`: for how long its recovery has."""

    order: ReadyOrder
    waited_s: float


class ReadyLook(Frozen):
    """Look at all VMs that a recovery waits for."""

    waits: tuple[ReadyWait, ...]


class ReadySettled(Frozen):
    """A VM that is waited for no longer."""

    vm_id: UUID
    found: ReadyFound


class ReadyLooked(Frozen):
    """What one look found, and in words; `next_s`: when to look at the others, in seconds."""

    settled: tuple[ReadySettled, ...]
    next_s: float | None
    why: str


class RunningVm(Frozen):
    """The run of a VM that was read back as running, and for how long it has been."""

    run: RunRef
    since_s: float


class ReadyRecords(Protocol):
    """The rows behind it. Every method is one transaction, and repeatable."""

    async def running(self, vm_id: UUID) -> RunningVm | None:
        """The VM's run, or None when it does not run."""
        ...

    async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
        """Keep when it was, and raise a warning for one that was not ready in time."""
        ...


class Doors(Protocol):
    """Services in guests, as the engine's machine reaches them."""

    async def open(self, host: str, port: int, within_s: float) -> bool:
        """Whether a port takes a connection within so many seconds; never raises for one."""
        ...


Turns = Mapping[str, asyncio.Semaphore]


class Readiness:
    """Looks at VMs that others wait for."""

    def __init__(self, hypervisor: Hypervisor, doors: Doors, records: ReadyRecords) -> None:
        self._hypervisor = hypervisor
        self._doors = doors
        self._records = records

    @activity.defn(name="recovery.look_ready")
    async def look_ready(self, look: ReadyLook) -> ReadyLooked:
        """Tell which VMs are waited for no longer: ready, overdue, or not running any more.

        None of them holds up the others: what has not answered in time is not ready yet.
        """
        turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE_ON_A_HOST)
        )
        # Nobody is always the last of its host.
        waits = random.sample(look.waits, len(look.waits))
        looks = (self._looked(wait, turns) for wait in waits)
        # A failure is told once all have ended, so that the next try is not at work beside them.
        said = await asyncio.gather(*looks, return_exceptions=True)
        settled, left = [], {}
        for order, found in zip((wait.order for wait in waits), said, strict=True):
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, ReadyFound):
                settled.append(ReadySettled(vm_id=order.vm_id, found=found))
            else:
                left[order.vm_name] = found
        next_s = min(left.values(), default=None)
        whys = sorted(one.found.why for one in settled)
        return ReadyLooked(settled=tuple(settled), next_s=next_s, why=_looked_at(whys, left))

    async def _looked(self, wait: ReadyWait, turns: Turns) -> ReadyFound | float:
        """How it ended, which is kept at once, or in how many seconds to look again."""
        order = wait.order
        vm = await self._records.running(order.vm_id)
        if vm is None:
            found = _gone(order)
        else:
            ready = await self._in_turn(order, vm, turns)
            # One that is started over and over keeps its dependants no longer than one that runs.
            waited_s = max(vm.since_s, wait.waited_s)
            if not ready and waited_s < order.rule.within_s:
                return ready_look_s(order.rule, waited_s)
            found = _found(order, ready)
        await self._records.settled(order, found)
        return found

    async def _in_turn(self, order: ReadyOrder, vm: RunningVm, turns: Turns) -> bool:
        """Whether it is ready, as far as that is told in time."""
        by_host = order.rule.when is ReadyWhen.AGENT
        turn = turns[vm.run.uri] if by_host else asyncio.Semaphore()
        try:
            async with asyncio.timeout(TURN_WITHIN_S):
                await turn.acquire()
        except TimeoutError:
            return False
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                return await self._is_ready(order, vm)
        except TimeoutError:
            return False
        except Exception as error:  # noqa: BLE001 - one VM's defect is not to hold up all others
            log.error("not told whether it is ready", vm=order.vm_name, error=repr(error))
            return False
        finally:
            turn.release()

    @activity.defn(name="vm.until_ready")
    async def until_ready(self, order: ReadyOrder) -> ReadyFound:
        """Wait for one VM in one step, as recoveries did that began before there were looks."""
        first = await self._records.running(order.vm_id)
        found = await self._wait(order, first)
        await self._records.settled(order, found)
        return found

    async def _wait(self, order: ReadyOrder, first: RunningVm | None) -> ReadyFound:
        rule, ran = order.rule, first is not None

        async def settled() -> bool:
            nonlocal ran
            vm = await self._records.running(order.vm_id)
            ran = vm is not None
            return vm is None or await self._is_ready(order, vm)

        left_s = rule.within_s - (first.since_s if first else 0.0)
        done = await until(settled, every_s=READY_LOOK_S, within_s=max(left_s, 0.0))
        return _found(order, done) if ran else _gone(order)

    async def _is_ready(self, order: ReadyOrder, vm: RunningVm) -> bool:
        return await is_ready(self._hypervisor, self._doors, order.rule, vm, order.deadline_s)


def _looked_at(settled: Iterable[str], left: Iterable[str]) -> str:
    names = list(left)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
    verb = "are" if len(names) > 1 else "is"
    return "; ".join([*settled, *([f"{shown} {verb} not ready yet"] if names else [])])


def _gone(order: ReadyOrder) -> ReadyFound:
    return ReadyFound(ready=False, why=f"{order.vm_name} does not run any more")


def _found(order: ReadyOrder, holds: bool) -> ReadyFound:
    """It is ready, or its limit has passed."""
    name, rule = order.vm_name, order.rule
    # A delay is over with its limit, whichever of the two clocks is a little late.
    if holds or rule.when is ReadyWhen.DELAY:
        return ReadyFound(ready=True, why=f"{name} is ready: {rule.told()}")
    detail = f"waited {rule.within_s:g} s in vain until {rule.told()}"
    return ReadyFound(ready=False, why=f"{name} is not ready: {detail}")


async def is_ready(
    hypervisor: Hypervisor, doors: Doors, rule: ReadyRule, vm: RunningVm, deadline_s: float
) -> bool:
    """Whether what a rule asks for holds now of a VM that runs; within so many seconds."""
    if rule.when is ReadyWhen.DELAY:
        return vm.since_s >= rule.delay_s
    if rule.when is ReadyWhen.TCP:
        return await doors.open(rule.host, rule.port, deadline_s)
    try:
        async with hypervisor.session(vm.run.uri, deadline_s) as session:
            said = await session.ask_agent(vm.run.spec.vm_id)
    except EngineError:
        return False  # its host does not answer now: that is no answer of the agent either
    return said is AgentState.ANSWERS

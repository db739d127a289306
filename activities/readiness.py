"""Waiting until a VM that others depend on is ready, see `domain.readiness`.

Repeatable: the VM is looked up anew at each look, so it may have been moved or started elsewhere
meanwhile, and all times count from when it was read back as running.
"""

from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor
from activities.waiting import until
from domain.base import Frozen
from domain.errors import EngineError
from domain.next_looks import READY_LOOK_S
from domain.orders import RunRef
from domain.readiness import ReadyRule, ReadyWhen
from domain.readings import AgentState


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


class Readiness:
    """Waits for one VM."""

    def __init__(self, hypervisor: Hypervisor, doors: Doors, records: ReadyRecords) -> None:
        self._hypervisor = hypervisor
        self._doors = doors
        self._records = records

    @activity.defn(name="vm.until_ready")
    async def until_ready(self, order: ReadyOrder) -> ReadyFound:
        """Wait until it is ready, its limit has passed, or it does not run any more."""
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
        if not ran:
            return ReadyFound(ready=False, why=f"{order.vm_name} does not run any more")
        # A delay is over with its limit, whichever of the two clocks is a little late.
        if done or rule.when is ReadyWhen.DELAY:
            return ReadyFound(ready=True, why=f"{order.vm_name} is ready: {rule.told()}")
        detail = f"waited {rule.within_s:g} s in vain until {rule.told()}"
        return ReadyFound(ready=False, why=f"{order.vm_name} is not ready: {detail}")

    async def _is_ready(self, order: ReadyOrder, vm: RunningVm) -> bool:
        return await is_ready(self._hypervisor, self._doors, order.rule, vm, order.deadline_s)


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

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
from domain.orders import AwaitedVm, RunRef
from domain.readiness import ReadyRule, ReadyWhen
from domain.readings import AgentState

BACK_LIMIT_S = 600.0
"""How long a VM waits for one that it depends on and that another recovery brings back. Higher: it
is down for longer where that one's host is held. Lower: it starts without it, as two hosts that
lose their power together are fenced one after the other."""

LOOK_EVERY_S = 1.0
"""Between looks. Higher: dependants start later. Lower: the guest is asked more often."""


class ReadyOrder(Frozen):
    """Wait for one VM in the recovery of an incident."""

    operation_id: UUID
    incident_id: UUID
    vm_id: UUID
    vm_name: str
    rule: ReadyRule
    deadline_s: float  # of one look


class BackOrder(Frozen):
    """Wait for a VM that `start_id`'s VM depends on, and that this recovery does not start."""

    operation_id: UUID
    start_id: UUID
    other: AwaitedVm
    deadline_s: float  # of one look


class ReadyFound(Frozen):
    """How it ended; `why` in words."""

    ready: bool
    why: str


class RunningVm(Frozen):
    """The run of a VM that was read back as running, and for how long it has been."""

    run: RunRef
    since_s: float


class StandingVm(Frozen):
    """How a VM stands: whether it is to come back, and its run where a host in service has it."""

    expected: bool
    vm: RunningVm | None


class ReadyRecords(Protocol):
    """The rows behind it. Every method is one transaction, and repeatable."""

    async def running(self, vm_id: UUID) -> RunningVm | None:
        """The VM's run, or None when it does not run."""
        ...

    async def standing(self, vm_id: UUID) -> StandingVm:
        """Whether the VM is to run, and its run on a host in service, if any."""
        ...

    async def show_awaited(self, order: BackOrder, detail: str) -> None:
        """Say on a start that has not begun what it waits for."""
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

    @activity.defn(name="vm.until_back")
    async def until_back(self, order: BackOrder) -> ReadyFound:
        """Wait until a VM of another recovery is back and ready, is not to come, or for a limit.

        Its host may be held for longer: a dependant that waited for ever would stay down, too.
        """
        other, within_s = order.other, back_within_s(order.other)
        found = await self._records.standing(other.vm_id)
        if found.expected and found.vm is None:
            waits = f"{other.vm_name}, which it depends on, is to be back first"
            await self._records.show_awaited(order, f"{waits}: for up to {within_s:.0f} s")

        async def settled() -> bool:
            nonlocal found
            found = await self._records.standing(other.vm_id)
            if not found.expected:
                return True
            return found.vm is not None and await self._is_back(order, found.vm)

        done = await until(settled, every_s=LOOK_EVERY_S, within_s=within_s)
        if not found.expected:
            return ReadyFound(ready=False, why=f"{other.vm_name} is not to run")
        why = "is back" if done else f"is not back and ready after {within_s:.0f} s"
        return ReadyFound(ready=done, why=f"{other.vm_name} {why}")

    async def _is_back(self, order: BackOrder, vm: RunningVm) -> bool:
        rule = order.other.ready
        if rule is None:
            return True
        wanted = ReadyOrder(
            operation_id=order.operation_id,
            incident_id=order.start_id,
            vm_id=order.other.vm_id,
            vm_name=order.other.vm_name,
            rule=rule,
            deadline_s=order.deadline_s,
        )
        return vm.since_s >= rule.within_s or await self._is_ready(wanted, vm)

    async def _wait(self, order: ReadyOrder, first: RunningVm | None) -> ReadyFound:
        rule, ran = order.rule, first is not None

        async def settled() -> bool:
            nonlocal ran
            vm = await self._records.running(order.vm_id)
            ran = vm is not None
            return vm is None or await self._is_ready(order, vm)

        left_s = rule.within_s - (first.since_s if first else 0.0)
        done = await until(settled, every_s=LOOK_EVERY_S, within_s=max(left_s, 0.0))
        if not ran:
            return ReadyFound(ready=False, why=f"{order.vm_name} does not run any more")
        # A delay is over with its limit, whichever of the two clocks is a little late.
        if done or rule.when is ReadyWhen.DELAY:
            return ReadyFound(ready=True, why=f"{order.vm_name} is ready: {rule.told()}")
        detail = f"waited {rule.within_s:g} s in vain until {rule.told()}"
        return ReadyFound(ready=False, why=f"{order.vm_name} is not ready: {detail}")

    async def _is_ready(self, order: ReadyOrder, vm: RunningVm) -> bool:
        rule, run = order.rule, vm.run
        if rule.when is ReadyWhen.DELAY:
            return vm.since_s >= rule.delay_s
        if rule.when is ReadyWhen.TCP:
            return await self._doors.open(rule.host, rule.port, order.deadline_s)
        try:
            async with self._hypervisor.session(run.uri, order.deadline_s) as session:
                said = await session.ask_agent(run.spec.vm_id)
        except EngineError:
            return False  # its host does not answer now: that is no answer of the agent either
        return said is AgentState.ANSWERS


def back_within_s(other: AwaitedVm) -> float:
    """How long a VM of another recovery is waited for at the most."""
    return max(BACK_LIMIT_S, 0.0 if other.ready is None else other.ready.within_s)

"""Looking whether VMs are back that starts of a recovery depend on, and that something else starts.

One look for all of them at a time: between two looks the workflow waits, and no step is at work.
Repeatable: everything is read anew, and what a start waits for is written as it stands now.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor
from activities.readiness import Doors, RunningVm, is_ready
from domain.base import Frozen
from domain.dependencies import back_within_s
from domain.orders import AwaitedVm


class WaitingStart(Frozen):
    """A start that has not begun, and the VMs of others that its VM depends on."""

    start_id: UUID
    vm_name: str
    awaits: tuple[AwaitedVm, ...]


class BackOrder(Frozen):
    """Look for all that starts of one recovery still wait for.

    waited_s    for how long they have been waited for
    deadline_s  of one question to a guest
    """

    operation_id: UUID
    starts: tuple[WaitingStart, ...]
    waited_s: float
    deadline_s: float


class Released(Frozen):
    """A start that waits no longer; `why` in words."""

    start_id: UUID
    why: str


class BackFound(Frozen):
    """What one look found: those that wait no longer. The others are looked for again."""

    released: tuple[Released, ...]


class StandingVm(Frozen):
    """How a VM stands: whether something brings it back, and its run where it runs well."""

    expected: bool
    vm: RunningVm | None


class Standing(Frozen):
    """How the VMs stand, and which of the starts have begun already."""

    vms: Mapping[UUID, StandingVm]
    begun: frozenset[UUID]


class DependencyRecords(Protocol):
    """The rows behind it. Every method is one transaction, and repeatable."""

    async def standing(self, order: BackOrder) -> Standing:
        """How everything stands that is waited for."""
        ...

    async def show(self, waits: Mapping[UUID, str], released: tuple[Released, ...]) -> None:
        """Say on starts that have not begun what they wait for, and take it back on others."""
        ...


class Dependencies:
    """Looks for the VMs of others."""

    def __init__(self, hypervisor: Hypervisor, doors: Doors, records: DependencyRecords) -> None:
        self._hypervisor = hypervisor
        self._doors = doors
        self._records = records

    @activity.defn(name="recovery.look_back")
    async def look_back(self, order: BackOrder) -> BackFound:
        """Tell which starts wait no longer: each VM is back and ready, not to come, or overdue.

        A VM's host may be held for ever, and a dependant that waited for it would stay down, too.
        """
        standing = await self._records.standing(order)
        others = {one.vm_id: one for start in order.starts for one in start.awaits}
        said = await asyncio.gather(
            *(self._settled(order, one, standing.vms.get(one.vm_id)) for one in others.values())
        )
        settled = dict(zip(others, said, strict=True))
        released, waits = [], {}
        for start in order.starts:
            missing = [one.vm_name for one in start.awaits if settled[one.vm_id] is None]
            if start.start_id in standing.begun:
                released.append(Released(start_id=start.start_id, why="it has begun already"))
            elif missing:
                waits[start.start_id] = _waits_for(missing, order.waited_s)
            else:
                why = "; ".join(dict.fromkeys(settled[one.vm_id] or "" for one in start.awaits))
                released.append(Released(start_id=start.start_id, why=why))
        await self._records.show(waits, tuple(released))
        return BackFound(released=tuple(released))

    async def _settled(
        self, order: BackOrder, other: AwaitedVm, found: StandingVm | None
    ) -> str | None:
        """Why a VM is waited for no longer; None: it is."""
        if found is None or not found.expected:
            return f"nothing brings {other.vm_name} back"
        if found.vm is not None and await self._is_back(order, other, found.vm):
            return f"{other.vm_name} is back"
        within_s = back_within_s(other.ready)
        if order.waited_s >= within_s:
            return f"{other.vm_name} is not back and ready after {within_s:.0f} s"
        return None

    async def _is_back(self, order: BackOrder, other: AwaitedVm, vm: RunningVm) -> bool:
        rule = other.ready
        if rule is None or vm.since_s >= rule.within_s:
            return True
        return await is_ready(self._hypervisor, self._doors, rule, vm, order.deadline_s)


def _waits_for(names: list[str], waited_s: float) -> str:
    which = " and ".join(names)
    verb = "are" if len(names) > 1 else "is"
    return f"{which}, which it depends on, {verb} to be back first: waited for {waited_s:.0f} s"

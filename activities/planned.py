"""Steps that start VMs again which were shut down with their host.

Each start is an operation of its own, ordered through the outbox like any other. These steps are
short transactions on rows, so they run as local activities; each may be repeated.
"""

from typing import Protocol
from uuid import UUID

from temporalio import activity

from domain.base import Frozen
from domain.orders import HostRef


class PlannedStep(Frozen):
    """Whose VMs are started again, and by which operation."""

    operation_id: UUID
    host: HostRef


class Returned(Frozen):
    """How the VMs of a plan stand."""

    running: int = 0  # started again
    under_way: int = 0  # being started
    waiting: tuple[str, ...] = ()  # for room or for another try, each with its reason
    failed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()  # not started yet: for their host, or for those they depend on


class PlannedRecords(Protocol):
    """The rows of VMs that come back. Every method is one transaction and may be repeated."""

    async def bring_back(self, step: PlannedStep) -> Returned:
        """Order the starts that are due, and tell how all of them stand."""
        ...

    async def give_up(self, step: PlannedStep) -> str:
        """Let the host serve on where it still does; a sentence about what is left how."""
        ...


class Planned:
    """Bring back, give up."""

    def __init__(self, records: PlannedRecords) -> None:
        self._records = records

    @activity.defn(name="planned.bring_back")
    async def bring_back(self, step: PlannedStep) -> Returned:
        """One look at the VMs that come back."""
        return await self._records.bring_back(step)

    @activity.defn(name="planned.give_up")
    async def give_up(self, step: PlannedStep) -> str:
        """Give the plan up."""
        return await self._records.give_up(step)

"""Steps that drain a host: move what can be moved, say what cannot, take it out when it is empty.

Each VM's move is an operation of its own, started through the outbox like any other. These steps
are short transactions on rows, so they run as local activities; each may be repeated.
"""

from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from domain.base import Frozen
from domain.orders import HostRef
from domain.planned import PlannedVms


class DrainStep(Frozen):
    """Which host is drained, and by which operation."""

    operation_id: UUID
    host: HostRef
    at_once: int
    retry_s: float
    # `failover` and `freeze` have its VMs shut down instead of moved.
    vms: PlannedVms = Field(
        default=PlannedVms.MIGRATE, exclude_if=lambda vms: vms is PlannedVms.MIGRATE
    )

    @property
    def stops(self) -> bool:
        """Whether its VMs are shut down."""
        return self.vms is not PlannedVms.MIGRATE


class Drained(Frozen):
    """How far it is. `left` counts the VMs that are still there, `moved` those moved or stopped."""

    moved: int
    left: int
    under_way: int  # moves that get on, or are about to
    stuck: tuple[str, ...] = ()  # VMs that cannot move now, each with its reason
    empty: bool = False  # and out of service


class MaintenanceRecords(Protocol):
    """The rows of a drain. Every method is one transaction and may be repeated."""

    async def advance(self, step: DrainStep) -> Drained:
        """Order the moves that the limit allows, or take an empty host out of service."""
        ...

    async def stay(self, step: DrainStep) -> str:
        """Ask the moves under way to end and let the host serve on; a sentence."""
        ...


class Maintenance:
    """Advance, stay."""

    def __init__(self, records: MaintenanceRecords) -> None:
        self._records = records

    @activity.defn(name="maintenance.advance")
    async def advance(self, step: DrainStep) -> Drained:
        """One look at the host's VMs."""
        return await self._records.advance(step)

    @activity.defn(name="maintenance.stay")
    async def stay(self, step: DrainStep) -> str:
        """Give the drain up."""
        return await self._records.stay(step)

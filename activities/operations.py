"""Steps on the operation itself: claim it, say what it waits for, pause it, close it.

They are short database transactions and run as local activities, so that an operation costs little
more than its own steps. Each may be repeated.
"""

from typing import Protocol
from uuid import UUID

from temporalio import activity

from domain.base import Frozen
from domain.operations import Outcome


class ClaimOrder(Frozen):
    """Which try of which operation the running workflow claims."""

    operation_id: UUID
    attempt: int
    run_id: str  # of the chain's first run: continuing as new stays the same owner


class WaitOrder(Frozen):
    """What an operation waits for; no code means that it runs again."""

    operation_id: UUID
    code: str | None = None
    detail: str = ""


class PauseOrder(Frozen):
    """Whether an operation stands still at a checkpoint."""

    operation_id: UUID
    paused: bool


class OperationRecords(Protocol):
    """The rows of operations."""

    async def claim(self, operation_id: UUID, attempt: int, run_id: str) -> None:
        """Make one workflow run the owner of one try; Superseded when another owns it."""
        ...

    async def wait(self, operation_id: UUID, code: str | None, detail: str) -> None:
        """Record a waiting reason, or with None that the operation runs."""
        ...

    async def pause(self, operation_id: UUID, paused: bool) -> None:
        """Record that the operation is paused, or that it runs again.

        Never refused: one that is being cancelled or has ended stays as it is.
        """
        ...

    async def close(self, outcome: Outcome) -> None:
        """End the operation, write its event and free its locks in one transaction."""
        ...


class Operations:
    """Claim, wait, pause, close."""

    def __init__(self, records: OperationRecords) -> None:
        self._records = records

    @activity.defn(name="operation.claim")
    async def claim(self, order: ClaimOrder) -> None:
        """Claim the operation for this workflow run."""
        await self._records.claim(order.operation_id, order.attempt, order.run_id)

    @activity.defn(name="operation.wait")
    async def wait(self, order: WaitOrder) -> None:
        """Show what the operation waits for."""
        await self._records.wait(order.operation_id, order.code, order.detail)

    @activity.defn(name="operation.pause")
    async def pause(self, order: PauseOrder) -> None:
        """Show that the operation stands still, or that it goes on."""
        await self._records.pause(order.operation_id, order.paused)

    @activity.defn(name="operation.close")
    async def close(self, outcome: Outcome) -> None:
        """Close the operation."""
        await self._records.close(outcome)

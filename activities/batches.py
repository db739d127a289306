"""Steps of a batch: release its children a few at a time, count how they ended, cancel the rest.

Children are operations of their own, started through the outbox like any other. These steps are
short transactions on their rows, so they run as local activities; each may be repeated.
"""

from typing import Protocol
from uuid import UUID

from temporalio import activity

from domain.base import Frozen


class BatchStep(Frozen):
    """Which batch to look at: the operation that is the parent of its children."""

    operation_id: UUID


class BatchProgress(Frozen):
    """How many children are where; they add up to `total`."""

    total: int
    succeeded: int
    failed: int  # also those that need attention
    cancelled: int
    open: int  # released, and not ended yet
    held: int  # not released yet
    stopped: bool = False  # the first failure has cancelled what was held


class BatchRecords(Protocol):
    """The rows of batches and their children."""

    async def advance(self, operation_id: UUID) -> BatchProgress:
        """Release held children up to the limit, urgent ones first, and count all of them.

        One transaction, repeatable: with `stop_on_error` it cancels what is held once a child has
        failed, and it writes the parent's progress. Refused when there is no such batch.
        """
        ...

    async def cancel_rest(self, operation_id: UUID) -> str:
        """Cancel held children and ask the open ones to cancel; a sentence with both numbers.

        Repeatable: a child that has ended, or was asked before, stays as it is.
        """
        ...


class Batches:
    """Advance, cancel the rest."""

    def __init__(self, records: BatchRecords) -> None:
        self._records = records

    @activity.defn(name="batch.advance")
    async def advance(self, step: BatchStep) -> BatchProgress:
        """Release what may start, and count."""
        return await self._records.advance(step.operation_id)

    @activity.defn(name="batch.cancel_rest")
    async def cancel_rest(self, step: BatchStep) -> str:
        """Cancel what has not ended."""
        return await self._records.cancel_rest(step.operation_id)

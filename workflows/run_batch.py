"""Run a batch: let its children start a few at a time, and say how all of them ended.

Phases      releasing and watching, look by look → done. A look is one transaction that releases
            what the limit allows; the next one comes with the signal `look_again`, which an ending
            child sends, or after `look_every_s`.
Invariants  the children's rows hold all that a batch knows, so a look may be lost, repeated, or
            made by the next run of this workflow: continuing as new carries nothing and looks at
            once.
Pause       stops releasing; what was released goes on.
Cancel      held children are cancelled, open ones are asked to cancel, and each closes itself.
Ends        failed (`BATCH_INCOMPLETE`) unless every child has succeeded.
"""

from temporalio import workflow

from activities.batches import Batches, BatchProgress, BatchStep
from domain.operations import Outcome, Problem
from domain.orders import RunBatchOrder
from workflows import options
from workflows.operation import failure_of, run_operation, to_its_end, wait_up_to
from workflows.pausing import Pausing


@workflow.defn
class RunBatch:
    """The durable operation `batch.run`."""

    @workflow.init
    def __init__(self, order: RunBatchOrder) -> None:
        self._order = order
        self._pausing = Pausing(order)
        self._looks_wanted = 0

    @workflow.run
    async def run(self, order: RunBatchOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._watch, self._cancel_rest)

    @workflow.signal
    def look_again(self) -> None:
        """A child may have ended: do not wait for the next look."""
        self._looks_wanted += 1

    async def _watch(self) -> str:
        while True:
            await self._pausing.checkpoint()
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(self._order)
            looks = self._looks_wanted
            # What a look has begun is not left to run beside the undoing of the batch.
            progress = await to_its_end(self._advance())
            if progress.open == progress.held == 0:
                return _end(progress)
            workflow.set_current_details(_sentence(progress))
            await self._wait(looks)

    async def _wait(self, looks: int) -> None:
        await wait_up_to(
            self._order.look_every_s,
            lambda: self._looks_wanted > looks or self._pausing.wanted,
            "look at the children",
        )

    async def _advance(self) -> BatchProgress:
        step = BatchStep(operation_id=self._order.operation_id)
        return await workflow.execute_local_activity_method(Batches.advance, step, **options.RECORD)

    async def _cancel_rest(self) -> str:
        step = BatchStep(operation_id=self._order.operation_id)
        return await workflow.execute_local_activity_method(
            Batches.cancel_rest, step, **options.RECORD
        )


def _end(progress: BatchProgress) -> str:
    sentence = _sentence(progress)
    if progress.succeeded == progress.total:
        return sentence
    stopped = ", stopped at the first failure" if progress.stopped else ""
    raise failure_of(
        Problem(
            code="BATCH_INCOMPLETE",
            detail=f"of {progress.total} actions {sentence}{stopped}",
            next_step="look at the child operations that did not succeed, and retry those",
            context={
                "total": progress.total,
                "succeeded": progress.succeeded,
                "failed": progress.failed,
                "cancelled": progress.cancelled,
            },
        )
    )


def _sentence(progress: BatchProgress) -> str:
    counts = {
        "succeeded": progress.succeeded,
        "failed": progress.failed,
        "cancelled": progress.cancelled,
        "under way": progress.open,
        "held": progress.held,
    }
    said = [f"{count} {word}" for word, count in counts.items() if count]
    return ", ".join(said) or "nothing to do"

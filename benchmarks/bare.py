"""The measure of an operation's cost: the same step as a Temporal workflow of nothing else."""

from temporalio import workflow

from activities.guests import GuestOrder, Guests
from domain.profiles import Policy
from workflows import options

QUEUE = "bare"


@workflow.defn
class BareStop:
    """One step, with the same options as in the operation, and no operation around it."""

    @workflow.run
    async def run(self, order: GuestOrder) -> str:
        """Run the step."""
        config = options.give_up(Policy(), f"end {order.run.spec.name}")
        config["task_queue"] = QUEUE
        return await workflow.execute_activity_method(Guests.end, order, **config)

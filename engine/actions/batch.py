"""The operation that a batch of actions is: the parent of one operation for each of them.

It is not asked for by itself but made by `engine.batches`, so it is in no registry: what it has of
an action are the declarations that its row, its event and its workflow need.
"""

from uuid import UUID

from pydantic import Field

from domain.orders import RunBatchOrder
from domain.permissions import Permission
from domain.profiles import Policy
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.closing import BATCH

BATCH_MAX = 1000
"""Most actions in one batch. Higher: its one transaction holds up other writers for longer."""


class RunBatch(Params):
    """What the batch's own operation keeps: how its children are let go, and what it is called."""

    title: str = Field(max_length=64)
    total: int = Field(ge=1, le=BATCH_MAX)
    at_once: int = Field(ge=1, le=BATCH_MAX)
    stop_on_error: bool = False
    cluster_id: UUID | None = None  # where all its children belong to one

    @property
    def urgent_first(self) -> bool:
        """Whether urgent children go before others; where one may stop those after it, none does.

        What is after a failure in the list has then not begun, unless it was begun beside it.
        """
        return not self.stop_on_error


class RunBatchAction(Action[RunBatch, None]):
    """`batch`: releases its children a few at a time and says how all of them ended."""

    params = RunBatch
    kind = BATCH
    permission = Permission.OPERATION_CONTROL
    workflow = "RunBatch"
    pausable = True
    external = False
    registered = False

    async def plan(self, tx: Tx, params: RunBatch, problems: Problems) -> Plan[None]:
        """Nothing to judge: each child is."""
        target = Target("batch", tx.operation_id, params.title, params.cluster_id)
        return Plan(target=target, facts=None, steps=(f"let {params.at_once} run at a time",))

    async def execute(self, tx: Tx, params: RunBatch, plan: Plan[None]) -> Done:
        """Order the workflow that lets the children go."""
        order = RunBatchOrder(
            operation_id=tx.operation_id, attempt=tx.attempt, context=tx.context, policy=Policy()
        )
        data = params.model_dump(mode="json", exclude={"title", "cluster_id"})
        return Done(order=order, data=data, progress_total=params.total)

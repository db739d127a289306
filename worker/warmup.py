"""One small workflow run to its end: the proof that a Temporal server really works.

A server answers health checks before it can run anything, and the first workflow of a fresh server
takes several times as long as the next. Running one before the engine is called ready pays for that
at a moment when nobody waits. It has a queue of its own, so it takes no slot from real work.
"""

from datetime import timedelta
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "warmup"
WITHIN = timedelta(seconds=30)
STEP_WITHIN = timedelta(seconds=10)


@activity.defn(name="warmup.echo")
async def echo(word: str) -> str:
    """Give the word back."""
    return word


@workflow.defn(name="WarmUp")
class WarmUp:
    """One step, so that both the workflow's and the activity's path are walked once."""

    @workflow.run
    async def run(self, word: str) -> str:
        """The word, after its way through an activity."""
        return await workflow.execute_activity(echo, word, start_to_close_timeout=STEP_WITHIN)


async def warm_up(client: Client) -> None:
    """Run the workflow once; repeatable. Raises the SDK's WorkflowFailureError or RPCError."""
    word = uuid4().hex
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[WarmUp],
        activities=[echo],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        answer = await client.execute_workflow(
            WarmUp.run,
            word,
            id=f"warmup/{word}",
            task_queue=QUEUE,
            execution_timeout=WITHIN,
            static_summary="proves that the server runs workflows",
        )
    if answer != word:
        raise RuntimeError(f"the warm-up workflow answered {answer!r} to {word!r}")

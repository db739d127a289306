"""Workflow ids in virtual Temporal: when one may be used again, and what becomes of who has it."""

import pytest
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from domain.operations import WorkflowState
from simulator.temporal.errors import AlreadyStarted
from tests.simulator.stand import stand
from tests.simulator.toys import Kid, KidOrder

pytestmark = pytest.mark.unit

REUSE = WorkflowIDReusePolicy
CONFLICT = WorkflowIDConflictPolicy


@pytest.mark.parametrize(
    ("reuse", "fails", "again"),
    [
        (REUSE.ALLOW_DUPLICATE, False, True),
        (REUSE.ALLOW_DUPLICATE_FAILED_ONLY, False, False),
        (REUSE.ALLOW_DUPLICATE_FAILED_ONLY, True, True),
        (REUSE.REJECT_DUPLICATE, True, False),
        (REUSE.TERMINATE_IF_RUNNING, False, True),
    ],
)
def test_an_id_is_used_again_as_the_policy_says(
    reuse: WorkflowIDReusePolicy, fails: bool, again: bool
) -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            await at.ended(at.start(Kid, KidOrder(fails=fails)))
            start = at.start_of(Kid, KidOrder(value=2))
            if not again:
                with pytest.raises(AlreadyStarted):
                    at.server.begin(start, reuse)
                return
            assert await at.result(at.server.begin(start, reuse)) == 2

        run(main())


def test_an_id_that_runs_is_kept_ended_or_refused_as_the_policy_says() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            start = at.start_of(Kid, KidOrder(sleep_s=100))
            first = at.server.begin(start)
            allow = REUSE.ALLOW_DUPLICATE
            assert at.server.begin(start, allow, CONFLICT.USE_EXISTING) is first
            with pytest.raises(AlreadyStarted):
                at.server.begin(start, allow, CONFLICT.FAIL)
            second = at.server.begin(start, allow, CONFLICT.TERMINATE_EXISTING)
            assert first.state is WorkflowState.TERMINATED
            third = at.server.begin(start, REUSE.TERMINATE_IF_RUNNING)
            assert second.state is WorkflowState.TERMINATED
            assert third.open

        run(main())

"""Child workflows in virtual Temporal: how their parents see them, and what becomes of them."""

import asyncio
from typing import Any

import pytest
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from domain.operations import WorkflowState
from simulator.temporal.errors import Unsupported
from simulator.temporal.run import Run
from tests.simulator.stand import Stand, stand
from tests.simulator.toys import Kid, KidOrder, Parent, ParentOrder

pytestmark = pytest.mark.unit

FAILED = "ChildWorkflowError (Child Workflow execution failed) <- "
CANCELLED = "ChildWorkflowError (Child Workflow execution cancelled) <- CancelledError (Cancelled)"


def kid(at: Stand) -> Run:
    """The child, its newest run."""
    found = at.server.current("kid")
    assert found is not None
    return found


def one(order: ParentOrder) -> str:
    """What a parent saw of its child."""
    with stand() as (at, run):
        at.worker()
        return str(run(at.does(Parent, order)))


def test_a_childs_result_is_its_parents() -> None:
    assert one(ParentOrder(kid=KidOrder(value="well", sleep_s=3))) == "well"


def test_a_child_that_goes_on_as_new_is_waited_for_to_its_last_run() -> None:
    assert one(ParentOrder(kid=KidOrder(value="well", sleep_s=3, again=2))) == "well"


def test_a_childs_failure_is_the_cause_of_its_parents_error() -> None:
    order = ParentOrder(kid=KidOrder(fails=True))
    assert one(order) == FAILED + "ApplicationError Kid (Kid: the child fails)"


def test_a_child_that_its_parent_cancels_is_seen_as_cancelled() -> None:
    order = ParentOrder(kid=KidOrder(sleep_s=100), cancel_after_s=3)
    assert one(order) == CANCELLED


@pytest.mark.parametrize(
    ("deed", "seen"), [("terminate", FAILED + "TerminatedError"), ("cancel", CANCELLED)]
)
def test_a_child_that_somebody_ends_is_seen_so(deed: str, seen: str) -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            begun = at.start(Parent, ParentOrder(kid=KidOrder(sleep_s=100)))
            await asyncio.sleep(2)
            getattr(at.server, deed)(kid(at))
            return await at.result(begun)

        assert run(main()).startswith(seen)


def test_an_id_that_is_taken_is_no_child() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            at.start(Kid, KidOrder(sleep_s=50), wid="kid")
            return await at.does(Parent, ParentOrder())

        assert run(main()) == "already started"


def test_a_child_may_take_over_an_id_that_runs() -> None:
    reuse = WorkflowIDReusePolicy.TERMINATE_IF_RUNNING
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            before = at.start(Kid, KidOrder(sleep_s=50), wid="kid")
            gave = await at.does(Parent, ParentOrder(kid=KidOrder(value="new"), reuse=reuse))
            assert before.state is WorkflowState.TERMINATED
            return gave

        assert run(main()) == "new"


@pytest.mark.parametrize("deed", ["completes", "is terminated"])
@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (ParentClosePolicy.ABANDON, WorkflowState.COMPLETED),
        (ParentClosePolicy.TERMINATE, WorkflowState.TERMINATED),
        (ParentClosePolicy.REQUEST_CANCEL, WorkflowState.CANCELLED),
    ],
)
def test_a_child_fares_as_its_policy_says_when_its_parent(
    policy: int, state: WorkflowState, deed: str
) -> None:
    order = ParentOrder(kid=KidOrder(sleep_s=20, value=1), policy=policy, waits=deed != "completes")
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            begun = at.start(Parent, order)
            await asyncio.sleep(2)
            if deed == "is terminated":
                at.server.terminate(begun)
            assert not begun.open
            assert (await at.ended(kid(at))).state is state

        run(main())


def test_a_child_of_a_child_falls_with_its_grandparent() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            begun = at.start(Parent, ParentOrder(kid=KidOrder(sleep_s=50)))
            await asyncio.sleep(1)
            at.server.terminate(begun)
            assert kid(at).state is WorkflowState.TERMINATED
            assert kid(at).steps == {}

        run(main())


def test_a_child_that_nobody_waits_for_any_more_ends_alone_when_its_parent_goes_on_as_new() -> None:
    order = ParentOrder(kid=KidOrder(sleep_s=20), policy=ParentClosePolicy.ABANDON, again=True)
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            await at.result(at.start(Parent, order))
            assert kid(at).open
            assert (await at.ended(kid(at))).state is WorkflowState.COMPLETED

        run(main())


def test_a_child_has_its_parents_priority_unless_it_has_one() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            own = Priority(priority_key=1, fairness_key="f")
            begun = at.start(Parent, ParentOrder(kid=KidOrder(sleep_s=3)), priority=own)
            await asyncio.sleep(1)
            assert (kid(at).rank.priority, kid(at).rank.fairness) == (1, "f")
            assert kid(at).start.parent is begun
            await at.ended(begun)

        run(main())


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (ParentOrder(limit_s=5), "workflow_execution_timeout of a child"),
        (
            ParentOrder(
                kid=KidOrder(sleep_s=9),
                cancel_after_s=1,
                cancellation=ChildWorkflowCancellationType.ABANDON,
            ),
            "cancellation type",
        ),
    ],
)
def test_what_is_lacking_is_named(order: ParentOrder, named: str) -> None:
    with stand(defects=True) as (at, run):
        at.worker()

        async def main() -> None:
            at.start(Parent, order)
            await asyncio.sleep(3)

        run(main())
    assert [type(each) for each in at.defects] == [Unsupported]
    assert named in str(at.defects[0])

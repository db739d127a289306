"""Workflows in virtual Temporal: timers, messages, ids, cancelling, going on as new."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
)
from temporalio.converter import encode_search_attributes

from domain.operations import WorkflowState
from simulator.loop import EPOCH
from simulator.temporal import failures
from simulator.temporal.errors import QueryFailed, WorkflowTaskFailed
from simulator.temporal.run import Run
from tests.simulator.stand import Stand, stand
from tests.simulator.toys import (
    PHASE,
    Caller,
    Cancelled,
    Closing,
    Counter,
    Kept,
    Kid,
    Labelled,
    Timers,
)

pytestmark = pytest.mark.unit


def payload(value: Any) -> tuple[Payload, ...]:
    """One argument."""
    return (failures.to_payload(value),)


def test_timers_and_conditions_keep_virtual_time() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            begun = at.start(Timers)
            await asyncio.sleep(50)
            assert len(begun.timers) == 0
            at.server.signal(begun, "knock")
            return await at.result(begun)

        log = run(main())
    assert log == [["slept", 2], ["called off", 3], ["in vain", 6], ["knocked", 50]]


def test_signals_come_in_their_order_and_end_a_wait() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            begun = at.start(Counter, Kept(total=1))
            for amount in (5, 7):
                at.server.signal(begun, "add", payload(amount))
            await asyncio.sleep(1)
            at.server.signal(begun, "end")
            return await at.result(begun)

        assert run(main()) == 13


def test_a_signal_with_start_starts_once() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            start = at.start_of(Counter, Kept())
            first = at.server.signal_with_start(start, "add", payload(2))
            again = at.server.signal_with_start(start, "add", payload(3))
            assert first is again
            at.server.signal(first, "end")
            assert await at.result(first) == 5
            after = at.server.signal_with_start(start, "add", payload(4))
            assert after is not first
            at.server.signal(after, "end")
            return await at.result(after)

        assert run(main()) == 4


def test_an_update_is_accepted_and_done_or_fails_or_is_rejected() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Run:
            begun = at.start(Counter, Kept(total=1))
            good = at.server.update(begun, "raise_by", payload(4))
            bad = at.server.update(begun, "raise_by", payload(-1))
            unlucky = at.server.update(begun, "raise_by", payload(13))
            await asyncio.sleep(1)
            assert good.accepted
            assert good.result is not None
            assert failures.from_payloads([good.result], [int]) == [5]
            assert not bad.accepted
            assert bad.rejected is not None
            assert "only upwards" in bad.rejected.message
            assert unlucky.accepted
            assert unlucky.result is None
            assert unlucky.rejected is not None
            assert "unlucky" in unlucky.rejected.message
            at.server.signal(begun, "end")
            return await at.ended(begun)

        ended = run(main())
    # What was rejected leaves nothing in the record, so that a replay does not ask again.
    told = [
        j.do_update.name for t in ended.turns for j in t.activation.jobs if j.HasField("do_update")
    ]
    assert told == ["raise_by", "raise_by"]


def test_an_update_of_a_workflow_that_ends_before_it_fails() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            begun = at.start(Counter, Kept())
            await asyncio.sleep(1)
            waits = at.server.update(begun, "raise_by", payload(4))
            at.server.terminate(begun)
            assert waits.failure is not None
            late = at.server.update(begun, "raise_by", payload(4))
            assert late.failure is not None
            assert not late.open

        run(main())


def test_queries_are_answered_while_it_runs_and_after() -> None:
    with stand() as (at, run):
        worker = at.worker()

        async def main() -> None:
            begun = at.start(Counter, Kept(total=3))
            with pytest.raises(QueryFailed, match="has not begun"):
                at.server.query(begun, "total", 2)
            await asyncio.sleep(1)
            assert at.server.query(begun, "total", 2) == 6
            at.server.signal(begun, "add", payload(1))
            await asyncio.sleep(1)
            worker.forget(begun)
            assert at.server.query(begun, "total", 10) == 40
            with pytest.raises(QueryFailed, match="unheard_of"):
                at.server.query(begun, "unheard_of")
            at.server.signal(begun, "end")
            await at.ended(begun)
            assert at.server.query(begun, "total", 1) == 4

        run(main())


def test_a_query_needs_a_worker_with_the_code() -> None:
    with stand() as (at, run):
        worker = at.worker()

        async def main() -> None:
            begun = at.start(Counter, Kept())
            await asyncio.sleep(1)
            at.kill(worker)
            with pytest.raises(LookupError):
                at.server.query(begun, "total", 1)

        run(main())


def test_current_details_show_in_the_metadata() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            begun = at.start(Counter, Kept(total=3))
            await asyncio.sleep(1)
            seen = at.server.query(begun, "__temporal_workflow_metadata")
            assert seen.current_details == "begun with 3"
            assert [each.name for each in seen.definition.signal_definitions] == ["add", "end"]
            at.server.signal(begun, "add", payload(1))
            await asyncio.sleep(1)
            seen = at.server.query(begun, "__temporal_workflow_metadata")
            assert seen.current_details == "at 4"

        run(main())


def test_it_goes_on_as_new_with_what_it_hands_over() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            begun = at.start(Counter, Kept(again_at=10), priority=Priority(priority_key=2))
            await asyncio.sleep(1)
            at.server.raise_priority(begun, 1)
            at.server.signal(begun, "add", payload(11))
            await asyncio.sleep(1)
            assert begun.state is WorkflowState.CONTINUED
            after = at.server.current("w")
            assert after is not None
            assert (after.first_run_id, after.continued_from) == (begun.run_id, begun.run_id)
            assert after.rank.priority == 1
            assert after.memo == {"rounds": failures.to_payload(1)}
            at.server.signal(after, "end")
            return await at.result(begun)

        assert run(main()) == 11


@pytest.mark.parametrize(
    ("cleans", "state"), [(False, WorkflowState.CANCELLED), (True, WorkflowState.COMPLETED)]
)
def test_a_cancelled_workflow_ends_or_cleans_up(cleans: bool, state: WorkflowState) -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> Run:
            begun = at.start(Cancelled, cleans)
            await asyncio.sleep(5)
            at.server.cancel(begun, "enough")
            at.server.cancel(begun, "again")
            return await at.ended(begun)

        ended = run(main())
        assert ended.state is state
        if cleans:
            assert ended.result is not None
            assert failures.from_payloads([ended.result], None) == ["cleaned: enough"]
    asked = [j for t in ended.turns for j in t.activation.jobs if j.HasField("cancel_workflow")]
    assert len(asked) == 1


def test_a_workflow_that_was_cancelled_before_its_first_task_still_begins() -> None:
    with stand() as (at, run):

        async def main() -> Run:
            begun = at.start(Cancelled, True)
            at.server.cancel(begun)
            at.worker()
            return await at.ended(begun)

        # The SDK lets it come to its first wait.
        assert run(main()).state is WorkflowState.COMPLETED


def test_news_that_come_while_it_completes_are_not_lost() -> None:
    with stand(hops={"report": 0.5}) as (at, run):
        at.worker()

        async def main() -> Any:
            begun = at.start(Closing)
            # Its timer ends at 1.5 s, its report arrives at 2 s.
            await asyncio.sleep(1.75)
            at.server.signal(begun, "knock")
            return await at.result(begun)

        assert run(main()) == 1
        ended = at.server.current("w")
        assert ended is not None
        closing = [
            t for t in ended.turns for c in t.commands if c.HasField("complete_workflow_execution")
        ]
    assert len(closing) == 1


def test_a_cancel_that_comes_while_it_completes_comes_too_late_or_in_time_but_is_not_lost() -> None:
    with stand(hops={"report": 0.5}) as (at, run):
        at.worker()

        async def main() -> Run:
            begun = at.start(Closing)
            await asyncio.sleep(1.75)
            at.server.cancel(begun)
            return await at.ended(begun)

        ended = run(main())
    # The timer's end and the cancel came in one task: what the SDK's code makes of both at once.
    asked = [j for t in ended.turns for j in t.activation.jobs if j.HasField("cancel_workflow")]
    assert len(asked) == 1
    assert ended.state in (WorkflowState.CANCELLED, WorkflowState.COMPLETED)


def test_others_are_signalled_and_cancelled_or_it_hears_that_they_are_not_there() -> None:
    with stand() as (at, run):
        at.worker()

        async def main() -> None:
            counter = at.start(Counter, Kept(), wid="counter")
            assert await at.does(Caller, "counter") == ["done", "done"]
            await at.ended(counter)
            assert counter.state is WorkflowState.CANCELLED
            gone = await at.does(Caller, "counter", wid="w2")
            assert all("unknown or has ended" in each for each in gone)

        run(main())


def _memo(at: Stand) -> Mapping[str, Any]:
    run = at.server.current("w")
    assert run is not None
    return {key: failures.from_payloads([value], None)[0] for key, value in run.memo.items()}


def test_memo_search_attributes_and_info_are_what_it_was_started_with() -> None:
    phase = SearchAttributes()
    encode_search_attributes(TypedSearchAttributes([SearchAttributePair(PHASE, "early")]), phase)
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            await asyncio.sleep(60)
            return await at.does(
                Labelled,
                priority=Priority(priority_key=2, fairness_key="f"),
                memo={"a": failures.to_payload("old")},
                attributes=dict(phase.indexed_fields),
            )

        seen = run(main())
        ended = at.server.current("w")
        assert ended is not None
        assert _memo(at) == {"b": "new"}
        assert b"late" in ended.attributes["ToyPhase"].data
    assert (seen["memo"], seen["phase"]) == ({"a": "old"}, "early")
    assert (seen["queue"], seen["priority"], seen["parent"]) == ("toys", 2, None)
    assert seen["root"] == "w"
    assert datetime.fromisoformat(seen["started"]) == datetime.fromisoformat(seen["now"])
    assert (datetime.fromisoformat(seen["now"]) - EPOCH).total_seconds() == 60


def test_a_workflow_whose_code_is_defective_is_reported_and_waits_for_better_code() -> None:
    with stand(defects=True) as (at, run):
        at.worker()

        async def main() -> None:
            begun = at.start(Kid, {"value": [], "again": "often"})
            await asyncio.sleep(25)
            assert begun.open

        run(main())
    assert len(at.defects) == 3
    assert all(isinstance(defect, WorkflowTaskFailed) for defect in at.defects)

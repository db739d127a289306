"""Workflow ids, problems, and the state sets of operations."""

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.errors import Conflict, NoAnswer
from domain.operations import (
    OPEN_STATES,
    OperationState,
    Problem,
    parse_workflow_id,
    workflow_id,
)

pytestmark = pytest.mark.unit

ID = UUID("5f0c1f3e-8a44-4b6e-9c55-0123456789ab")


def test_a_workflow_id_names_the_operation_and_its_try() -> None:
    assert workflow_id(ID, 3) == f"op/{ID}/3"


@given(operation_id=st.uuids(), attempt=st.integers(min_value=0, max_value=10**9))
def test_a_workflow_id_is_read_back_as_what_it_was_built_from(
    operation_id: UUID, attempt: int
) -> None:
    assert parse_workflow_id(workflow_id(operation_id, attempt)) == (operation_id, attempt)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "op",
        f"op/{ID}",
        f"op/{ID}/",
        f"op/{ID}/1/",
        f"op/{ID}/1/2",
        f"OP/{ID}/1",
        f"run/{ID}/1",
        f"/op/{ID}/1",
        f"op/{ID}/one",
        f"op/{ID}/-1",
        f"op/{ID}/+1",
        f"op/{ID}/1.0",
        f"op/{ID}/ 1",
        f"op/{ID}/1\n",
        f"op/{ID}/01",
        f"op/{ID}/²",
        f"op/{ID}/٣",
        f"op/{ID}/{'9' * 5000}",
        "op/not-a-uuid/1",
        f"op/{str(ID).upper()}/1",
        f"op/{ID.hex}/1",
        f"op/{{{ID}}}/1",
        f"op/urn:uuid:{ID}/1",
        "temporal-sys-scheduler",
    ],
)
def test_any_other_spelling_is_the_id_of_no_operation(value: str) -> None:
    assert parse_workflow_id(value) is None


pieces = st.sampled_from(["op", str(ID), ID.hex, "/", "1", "0", "", "٣", "²", "-", "\n"])


@given(value=st.one_of(st.text(), st.lists(pieces, max_size=7).map("".join)))
@example(f"op/{ID}/1")
def test_whatever_is_taken_for_a_workflow_id_is_its_only_spelling(value: str) -> None:
    found = parse_workflow_id(value)
    assert found is None or workflow_id(*found) == value


def test_an_open_operation_is_one_that_has_not_ended() -> None:
    ended = {
        OperationState.SUCCEEDED,
        OperationState.FAILED,
        OperationState.CANCELLED,
        OperationState.NEEDS_ATTENTION,
    }
    assert set(OPEN_STATES) == set(OperationState) - ended
    assert len(OPEN_STATES) == len(set(OPEN_STATES))


def test_a_problem_repeats_everything_the_error_said() -> None:
    error = Conflict("VM_RUNS", "vm db runs on h1", next_step="stop it first", vm="db", run=7)
    assert Problem.of(error) == Problem(
        code="VM_RUNS",
        detail="vm db runs on h1",
        next_step="stop it first",
        retryable=False,
        context={"vm": "db", "run": 7},
    )


def test_a_problem_says_whether_asking_again_may_help() -> None:
    assert Problem.of(NoAnswer("HOST_SILENT", "h1 did not answer")).retryable is True
    assert Problem.of(Conflict("VM_RUNS", "it runs")).retryable is False


def test_a_problem_survives_the_way_through_json() -> None:
    problem = Problem.of(NoAnswer("HOST_SILENT", "h1 → no answer", host="h1", tries=3, last=None))
    assert Problem.model_validate_json(problem.model_dump_json()) == problem

"""Every step of every workflow failing before, failing after, and running twice."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults import IN_PROCESS
from tests.workflow.bench import quick
from tests.workflow.trials import (
    IN_PROCESS_AT_ONCE,
    TRIED,
    Case,
    Result,
    cases,
    check,
    patience_s,
    run_all,
)

pytestmark = [pytest.mark.workflow, pytest.mark.asyncio(loop_scope="module")]

CASES = cases(IN_PROCESS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(
    temporal_address: str, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Case, Result | BaseException]]:
    """The result of every trial of this file."""
    with quick(TRIED):
        folder = tmp_path_factory.mktemp("trials")
        yield await run_all(CASES, temporal_address, migrated, folder, IN_PROCESS_AT_ONCE)


@pytest.mark.timeout(patience_s(CASES))
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_one_fault_in_one_step_changes_no_end_and_breaks_no_invariant(
    case: Case, results: dict[Case, Result | BaseException]
) -> None:
    check(results[case])

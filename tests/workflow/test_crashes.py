"""Every step of every workflow with its worker killed (SIGKILL) before and after it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults import CRASHES
from tests.workflow.bench import quick
from tests.workflow.trials import TRIED, Case, Result, cases, check, patience_s, run_all

pytestmark = [pytest.mark.workflow, pytest.mark.asyncio(loop_scope="module")]

CASES = cases(CRASHES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(
    temporal_address: str, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Case, Result | BaseException]]:
    """The result of every trial of this file."""
    with quick(TRIED):
        yield await run_all(CASES, temporal_address, migrated, tmp_path_factory.mktemp("trials"))


@pytest.mark.timeout(patience_s(CASES))
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_worker_killed_at_one_step_changes_no_end_and_breaks_no_invariant(
    case: Case, results: dict[Case, Result | BaseException]
) -> None:
    check(results[case])

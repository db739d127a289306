"""Leave pytest by `exit_process`: tests use Temporal clients, whose threads can crash the
interpreter's teardown and turn a passed run into a failed one (see worker/exit.py)."""

import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.simulator.figures import pytest_terminal_summary as pytest_terminal_summary
from worker.exit import exit_process

if "CI" not in os.environ:  # there Hypothesis has a profile of its own, which does the same
    settings.register_profile(
        "holdfast", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("holdfast")

_STATUS = pytest.StashKey[int]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then those with many: the last file is waited for alone."""
    slow = {item.path for item in items if "slow" in item.keywords and "lab" not in item.keywords}
    count = Counter(item.path for item in items)
    if slow:
        items.sort(key=lambda item: (item.path not in slow, -count[item.path]))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # An xdist worker must end by itself, after it has said goodbye to its controller.
    if _STATUS in config.stash and not hasattr(config, "workerinput"):
        exit_process(config.stash[_STATUS])


@pytest.fixture(autouse=True)
def no_database_is_left_open() -> Iterator[None]:
    """A thread of an SQLite connection that nobody closed may call a loop that has ended."""
    before = _sqlite_threads()
    yield
    left = _sqlite_threads() - before
    assert not left, f"{len(left)} connections were left open: close their database"


def _sqlite_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "_connection_worker_thread" in each.name}

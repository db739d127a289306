"""A lab of three hosts for the whole test run, whole again before each test.

Without root or the lab's packages the tests are skipped with the reason; under CI=true they fail,
because a suite that skips what it is for proves nothing.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from lab import guest_image, network, requirements
from lab.lab import Lab, default_var
from tests.lab.center import Center, running_center
from tests.lab.whole import make_whole

FIGURES = pytest.StashKey[list[str]]()


def _require_lab() -> None:
    """Skip, or fail under CI, when no lab can run here."""
    obstacles = requirements.obstacles()
    if not obstacles:
        return
    reason = "no lab can run here: " + "; ".join(obstacles)
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _make_lab(folder: pytest.TempPathFactory, hosts: int, letter: str) -> Lab:
    """A lab of this test process alone, so that several runs share a machine."""
    return Lab(
        name=f"{letter}{os.getpid() % 1_000_000}",
        k=network.free_k(first=100 + os.getpid() % 100),
        hosts=hosts,
        var=folder.mktemp("var"),
        cache=guest_image.cache_folder(default_var()),
    )


@pytest.fixture(scope="session")
def lab_for_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts; use `lab`, which is whole at the start of each test."""
    _require_lab()
    libvirt.registerErrorHandler(lambda *_: None, None)
    lab = _make_lab(tmp_path_factory, hosts=3, letter="t")
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


def _own_labs(folder: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    _require_lab()
    made: list[Lab] = []

    def make(hosts: int) -> Lab:
        made.append(_make_lab(folder, hosts, "abcd"[len(made)]))
        return made[-1]

    yield make
    for each in made:
        each.down()


@pytest.fixture
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """Make a lab of n hosts for one test alone; it is not up yet, and taken down afterwards."""
    yield from _own_labs(tmp_path_factory)


@pytest.fixture(scope="module")
def own_lab_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Lab]]:
    """The same for the tests of one module."""
    yield from _own_labs(tmp_path_factory)


@pytest.fixture
def lab(lab_for_session: Lab) -> Lab:
    """Three hosts on, connected and empty, with honest power controllers."""
    make_whole(lab_for_session)
    return lab_for_session


@pytest.fixture(scope="module")
def fresh_lab(lab_for_session: Lab) -> Lab:
    """The lab, whole and empty, for an engine that manages it for a module's tests."""
    make_whole(lab_for_session)
    return lab_for_session


@pytest.fixture(scope="module")
def engine_var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a module's engine; its logs stay there."""
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    """The engine on these hosts, in the profile `fast`; a module may run it in another way."""
    with running_center(fresh_lab, engine_var, "fast") as found:
        yield found


@pytest.fixture
def center(running: Center) -> Center:
    """The same with every host well and up."""
    running.settle()
    return running


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Report a measured figure at the end of the test run."""
    found = request.config.stash.setdefault(FIGURES, [])
    return lambda text: found.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(FIGURES, []):
        terminalreporter.section("lab figures")
        for line in found:
            terminalreporter.write_line(line)

"""The mark of a process: another one of this machine is seen to be dead, of others nobody knows."""

import subprocess
import sys

import pytest

from worker.owners import _dead_here, _mark, _started, this_process

pytestmark = pytest.mark.unit


def test_a_process_knows_its_own_mark_and_is_not_dead() -> None:
    mine = this_process("engine-1")
    assert mine.machine == "engine-1"
    assert mine == this_process("engine-1")
    assert not mine.is_dead(mine.mark)
    assert len(mine.mark) <= 128


def test_a_process_that_has_ended_is_dead_and_one_that_runs_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = _mark(child.pid)
    try:
        assert not _dead_here(mark)
    finally:
        child.communicate(b"\n")
    assert _started(child.pid) == ""
    assert _dead_here(mark)


def test_a_process_number_that_was_given_again_is_not_the_process_that_had_it() -> None:
    boot, namespace, pid, _ = this_process("").mark.split("/")
    assert _dead_here(f"{boot}/{namespace}/{pid}/1")


@pytest.mark.parametrize("mark", ["", "engine-1", "a/b/c/d", "a/1/1/1"])
def test_of_another_machine_or_boot_or_container_nothing_is_known(mark: str) -> None:
    assert not _dead_here(mark)
    boot, _, pid, started = this_process("").mark.split("/")
    assert not _dead_here(f"{boot}/1/{pid}/{started}")

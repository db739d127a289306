"""A lab whose guests leave the machine's cores to the engine and to the hosts' own daemons."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.test_lab_itself import start

pytestmark = pytest.mark.lab

NICE = 7


def nice_of(pid: int) -> int:
    """Of its session's group where the kernel makes one, else its own."""
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        return int(group.read_text().rsplit("nice", 1)[1])
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_guests_that_have_started_yield_as_far_as_the_lab_is_told(
    own_lab: Callable[..., Lab],
) -> None:
    lab = own_lab(1, guest_nice=NICE)
    lab.up()
    with lab.sampler() as sampler:
        start(lab, "h1", "yields")
        (copy,) = [copy.pid for copy in sampler.result().running if copy.vm == "yields"]
        assert nice_of(copy) == NICE

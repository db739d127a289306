"""Guests of the lab leave the machine's cores to the engine and to the hosts' own daemons."""

import os
from pathlib import Path

import pytest

from lab.host_files import GUEST_NICE
from lab.lab import Lab
from tests.lab.test_lab_itself import start

pytestmark = pytest.mark.lab


def nice_of(pid: int) -> int:
    """Of its session's group where the kernel makes one, else its own."""
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        return int(group.read_text().rsplit("nice", 1)[1])
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_a_guest_that_has_started_yields_to_what_the_data_centre_does(lab: Lab) -> None:
    with lab.sampler() as sampler:
        start(lab, "h1", "yields")
        copies = [copy.pid for copy in sampler.result().running if copy.vm == "yields"]
        assert [nice_of(pid) for pid in copies] == [GUEST_NICE]
    assert nice_of(os.getpid()) < GUEST_NICE

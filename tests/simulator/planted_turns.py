"""Planted bugs of the turns that starts take on a host."""

from random import Random

import pytest

from domain.profiles import Profile
from engine.records import start_turns
from simulator.faults.plan import Plan
from simulator.setup import HostSetup, Setup, VmSetup
from tests.simulator.families import fault, plan
from tests.simulator.planted import Bug

ONE_BY_ONE = Setup(
    hosts=tuple(HostSetup(name=name) for name in ("h1", "h2", "h3")),
    vms=tuple(VmSetup(name=f"vm{number}", host=f"h{1 + number % 2}") for number in range(4)),
    profile=Profile.FAST,
    starts_per_host=1,
)
"""Two hosts with two VMs each, and one that has none and starts one at a time."""


def two_lose_their_power(seed: int) -> tuple[Setup, Plan]:
    """Two hosts lose their power together, and the third one takes the VMs of both."""
    rng = Random(seed)
    at_s = rng.uniform(1, 3)
    cuts = (fault("host.power_cut", at_s + rng.uniform(0, 0.2), name) for name in ("h1", "h2"))
    return ONE_BY_ONE, plan("two lose their power", *cuts)


def each_recovery_counts_for_itself(patch: pytest.MonkeyPatch) -> None:
    """The claim of a run asks nobody what else starts on its host."""
    patch.setattr(start_turns, "why_not_yet", lambda *_given: None)


BUGS = (Bug(each_recovery_counts_for_itself, two_lose_their_power, 20, 1, ("starts_take_turns",)),)

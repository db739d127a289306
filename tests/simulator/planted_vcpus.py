"""Planted bugs of counting vCPUs."""

from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from domain.placement import Room
from domain.profiles import Profile
from simulator.faults.plan import Plan
from simulator.setup import HostSetup, Setup, VmSetup
from store import hosts
from store.prebuilt import prebuilt
from tests.simulator.families import fault, plan
from tests.simulator.planted import Bug

NARROW = Setup(
    hosts=tuple(HostSetup(name=name) for name in ("h1", "h2", "h3")),
    vms=tuple(
        VmSetup(name=f"vm{number}", host=f"h{1 + number % 3}", vcpus=2) for number in range(6)
    ),
    profile=Profile.FAST,
    vcpu_overcommit=1.25,
)
"""Hosts of four CPUs and five vCPUs, with two VMs of two each: memory for all, vCPUs for nobody."""


def power_cut_among_the_narrow(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power, and no other one has the vCPUs for its VMs."""
    rng = Random(seed)
    return NARROW, plan("power cut among the narrow", fault("host.power_cut", rng.uniform(1, 3)))


def vcpus_ignored(patch: pytest.MonkeyPatch) -> None:
    """Neither the plan nor the statement that promises asks for a limit of vCPUs."""
    patch.setattr(Room, "has_vcpus", lambda *_given: True)
    patch.setattr(hosts, "takes_vcpus", lambda *_given: sa.true())
    reserve: Any = hosts._reserve
    patch.setattr(hosts, "_reserve", prebuilt(reserve.__wrapped__))  # built anew, with that


BUGS = (Bug(vcpus_ignored, power_cut_among_the_narrow, 5, 1, ("capacity_holds",)),)

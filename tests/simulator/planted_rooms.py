"""Planted bugs of making room for VMs that a recovery could not place."""

from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain import make_room as domain_make_room
from domain.make_room import MakeRoom
from domain.placement import Guest
from domain.profiles import Profile
from simulator.faults.plan import Plan
from simulator.setup import HostSetup, Setup, VmSetup
from store import made_room
from store.rows import Row, changed
from store.schema_ha import made_room as table
from tests.simulator.families import fault, plan
from tests.simulator.planted import Bug

EQUALS = Setup(
    hosts=tuple(HostSetup(name=name) for name in ("h1", "h2", "h3")),
    vms=tuple(VmSetup(name=f"vm{n}", host=f"h{n}", memory_mib=600) for n in (1, 2, 3)),
    profile=Profile.FAST,
    make_room=MakeRoom.SHUTDOWN,
)
"""Each host is full with a VM that is as important as the others."""


def power_cut_among_equals(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power, and no other one has room for its VM."""
    rng = Random(seed)
    return EQUALS, plan("power cut among equals", fault("host.power_cut", rng.uniform(1, 3)))


def stops_an_equal(patch: pytest.MonkeyPatch) -> None:
    """A VM of equal priority is stopped for another; the claim believes the plan."""

    def not_above(one: Guest, by: Guest) -> bool:
        return one.priority <= by.priority

    async def believing(connection: AsyncConnection, values: Row) -> bool:
        said = {"priority": 0, "for_priority": 1}
        return await changed(connection, table.insert().values(**values, **said)) == 1

    patch.setattr(domain_make_room, "outranked", not_above)
    patch.setattr(made_room, "claim", believing)


BUGS = (Bug(stops_an_equal, power_cut_among_equals, 5, 1, ("outranked",)),)

"""A step that defines a guest asks, behind its open connection, whether that is still wanted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest

from activities.guests import GuestOrder, Guests
from domain.errors import Superseded
from domain.inventory import GuestSpec, VirtType
from domain.orders import RunRef

pytestmark = pytest.mark.unit

RUN = RunRef(
    run_id=UUID(int=1),
    operation_id=UUID(int=2),
    host_id=UUID(int=3),
    host_name="h1",
    uri="qemu+tcp://h1/system",
    epoch=1,
    generation=4,
    spec=GuestSpec(vm_id=UUID(int=9), name="db", memory_mib=128, vcpus=1, virt_type=VirtType.QEMU),
)


class Told:
    """A hypervisor and the rows of runs, which write down in which order they were asked."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.heard: list[str] = []

    @asynccontextmanager
    async def session(self, uri: str, _deadline_s: float) -> AsyncIterator["Told"]:
        self.heard.append(f"connect {uri}")
        yield self

    async def define(self, spec: GuestSpec, generation: int) -> None:
        self.heard.append(f"define {spec.name} {generation}")

    async def expect(self, run: RunRef) -> None:
        self.heard.append(f"expect {run.generation}")
        if not self.wanted:
            raise Superseded("SUPERSEDED", "the run is lost", next_step="look at the VM")


def guests(told: Any) -> Guests:
    return Guests(cast(Any, told), cast(Any, told))


async def test_a_guest_is_defined_once_its_run_is_known_to_be_wanted() -> None:
    told = Told(wanted=True)
    await guests(told).define(GuestOrder(run=RUN, deadline_s=1))
    assert told.heard == [f"connect {RUN.uri}", "expect 4", "define db 4"]


async def test_a_late_step_of_a_lost_run_defines_nothing_on_a_host_that_came_back() -> None:
    told = Told(wanted=False)
    with pytest.raises(Superseded):
        await guests(told).define(GuestOrder(run=RUN, deadline_s=1))
    assert told.heard == [f"connect {RUN.uri}", "expect 4"]

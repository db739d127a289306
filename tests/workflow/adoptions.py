"""Scenarios on VMs that somebody moved by hand: each gives the operation that adopts one."""

from copy import copy
from uuid import UUID

from domain.readings import StateReason
from engine.actions.adoptions import AdoptCopy
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.ended_guests import report
from tests.workflow.scenarios import Scenario, cancel_is_known, finished
from tests.workflow.stray_copies import move_by_hand, start_by_hand


async def adopt(bench: Bench, vm: str, on: str) -> UUID:
    """Ask for the copy on a host to be adopted; the operation."""
    return await bench.act(AdoptCopy(vm_id=bench.vms[vm], host_id=bench.hosts[on]))


def move_and_leave_behind(bench: Bench, vm: str, home: str, to: str) -> None:
    """As `virsh migrate` does it: what it ran from stays defined there."""
    move_by_hand(bench, vm, home, to)
    left = copy(bench.centre.hosts[to].domains[bench.vms[vm]])
    left.end(StateReason.MIGRATED)
    bench.centre.hosts[home].domains[bench.vms[vm]] = left


async def a_vm_that_was_moved_by_hand_is_adopted(bench: Bench) -> UUID:
    """AdoptCopy: both hosts read, numbered, marked, recorded, forgotten where it was."""
    await bench.add_vm("db", "h1")
    move_and_leave_behind(bench, "db", "h1", "h2")
    return await finished(bench, await adopt(bench, "db", "h2"))


async def a_vm_is_adopted_while_its_recovery_waits(bench: Bench) -> UUID:
    """AdoptCopy: `vm.recover` waits for a person, and gives way."""
    await bench.add_vm("db", "h1")
    move_and_leave_behind(bench, "db", "h1", "h2")
    await bench.waits(await report(bench, "db"), "GUEST_MIGRATED")
    return await finished(bench, await adopt(bench, "db", "h2"))


async def what_is_left_behind_and_is_not_ours_stays(bench: Bench) -> UUID:
    """AdoptCopy: somebody has defined the VM anew on the host that it left, without our mark."""
    await bench.add_vm("db", "h1")
    move_and_leave_behind(bench, "db", "h1", "h2")
    bench.centre.hosts["h1"].domains[bench.vms["db"]].generation = None
    return await finished(bench, await adopt(bench, "db", "h2"))


async def neither_of_two_copies_is_adopted(bench: Bench) -> UUID:
    """AdoptCopy: the VM runs where it should as well."""
    await bench.add_vm("db", "h1")
    start_by_hand(bench, "db", "h1", "h2")
    return await finished(bench, await adopt(bench, "db", "h2"))


async def nothing_is_adopted_while_the_old_host_is_silent(bench: Bench) -> UUID:
    """AdoptCopy: that the VM has left it cannot be read."""
    await bench.add_vm("db", "h1")
    move_by_hand(bench, "db", "h1", "h2")
    bench.centre.hosts["h1"].frozen = True
    return await finished(bench, await adopt(bench, "db", "h2"))


async def an_adoption_is_cancelled(bench: Bench) -> UUID:
    """AdoptCopy: cancelled while the hosts are read."""
    await bench.add_vm("db", "h1")
    move_by_hand(bench, "db", "h1", "h2")
    reading = bench.centre.before["lookup"] = Gate()
    operation = await adopt(bench, "db", "h2")
    await reading.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    reading.open()
    return await finished(bench, operation)


ADOPTIONS: tuple[Scenario, ...] = (
    a_vm_that_was_moved_by_hand_is_adopted,
    a_vm_is_adopted_while_its_recovery_waits,
    what_is_left_behind_and_is_not_ours_stays,
    neither_of_two_copies_is_adopted,
    nothing_is_adopted_while_the_old_host_is_silent,
    an_adoption_is_cancelled,
)
"""The happy path first."""

"""Scenarios on copies of VMs where none should run: each gives the operation that ends one."""

from uuid import UUID

from domain.readings import StateReason
from engine.actions.stray_copies import EndCopy
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.ended_guests import report
from tests.workflow.scenarios import Scenario, cancel_is_known, finished


async def end_copy(bench: Bench, vm: str, on: str, *, last_copy: bool = False) -> UUID:
    """Ask for a copy on a host to be ended; the operation."""
    return await bench.act(
        EndCopy(vm_id=bench.vms[vm], host_id=bench.hosts[on], last_copy=last_copy)
    )


def start_by_hand(bench: Bench, vm: str, home: str, on: str) -> None:
    """A person starts a second copy. What is counted from here on is the engine's own doing."""
    hosts, vm_id = bench.centre.hosts, bench.vms[vm]
    assert bench.centre.copy_by_hand(hosts[home], hosts[on], vm_id)
    bench.centre.copies_max[vm_id] = 1


def move_by_hand(bench: Bench, vm: str, home: str, to: str) -> None:
    """As `virsh migrate --undefinesource` does it: there is one copy at any time."""
    hosts, vm_id = bench.centre.hosts, bench.vms[vm]
    hosts[to].domains[vm_id] = hosts[home].domains.pop(vm_id)


async def recovery_waits(bench: Bench) -> None:
    """`db` ran on h1, where its memory is saved by now, and runs on h2."""
    start_by_hand(bench, "db", "h1", "h2")
    bench.centre.hosts["h1"].end(bench.vms["db"], "saved", StateReason.SAVED)
    await bench.waits(await report(bench, "db"), "GUEST_SAVED")


async def a_copy_that_was_started_by_hand_is_ended(bench: Bench) -> UUID:
    """EndCopy: both hosts read, ended, undefined, told."""
    await bench.add_vm("db", "h1")
    start_by_hand(bench, "db", "h1", "h2")
    return await finished(bench, await end_copy(bench, "db", "h2"))


async def a_copy_that_may_be_the_last_is_left(bench: Bench) -> UUID:
    """EndCopy: the VM's own host is read without it, and nobody has said `--last-copy`."""
    await bench.add_vm("db", "h1")
    move_by_hand(bench, "db", "h1", "h2")
    return await finished(bench, await end_copy(bench, "db", "h2"))


async def a_last_copy_is_ended(bench: Bench) -> UUID:
    """EndCopy: the VM was moved by hand; its run is closed, its own host read without it."""
    await bench.add_vm("db", "h1")
    move_by_hand(bench, "db", "h1", "h2")
    return await finished(bench, await end_copy(bench, "db", "h2", last_copy=True))


async def a_last_copy_is_ended_while_its_recovery_waits(bench: Bench) -> UUID:
    """EndCopy: `vm.recover` waits for a person, and gives way."""
    await bench.add_vm("db", "h1")
    await recovery_waits(bench)
    return await finished(bench, await end_copy(bench, "db", "h2", last_copy=True))


async def a_copy_of_a_vm_that_is_down_is_ended(bench: Bench) -> UUID:
    """EndCopy: it should run nowhere, and somebody has started it by hand."""
    await bench.add_vm("db", "h1")
    start_by_hand(bench, "db", "h1", "h2")
    await bench.ended(await bench.stop("db", force=True))
    return await finished(bench, await end_copy(bench, "db", "h2", last_copy=True))


async def a_copy_on_a_host_that_falls_silent_is_left(bench: Bench) -> UUID:
    """EndCopy: its host cannot be read."""
    await bench.add_vm("db", "h1")
    start_by_hand(bench, "db", "h1", "h2")
    bench.centre.hosts["h2"].reachable = False
    return await finished(bench, await end_copy(bench, "db", "h2"))


async def the_end_of_a_copy_is_cancelled(bench: Bench) -> UUID:
    """EndCopy: cancelled while the hosts are read."""
    await bench.add_vm("db", "h1")
    start_by_hand(bench, "db", "h1", "h2")
    reading = bench.centre.before["lookup"] = Gate()
    operation = await end_copy(bench, "db", "h2")
    await reading.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    reading.open()
    return await finished(bench, operation)


STRAY_COPIES: tuple[Scenario, ...] = (
    a_copy_that_was_started_by_hand_is_ended,
    a_copy_that_may_be_the_last_is_left,
    a_last_copy_is_ended,
    a_last_copy_is_ended_while_its_recovery_waits,
    a_copy_of_a_vm_that_is_down_is_ended,
    a_copy_on_a_host_that_falls_silent_is_left,
    the_end_of_a_copy_is_cancelled,
)
"""The happy path first."""

"""Scenarios on migrations: each drives a fresh bench to one end and gives the operation to look at.

A guest that is `stalled` does not get on: libvirt is at it until it is given up or a host dies.
"""

from uuid import UUID

from engine.actions.operations import ResumeOperation
from tests.workflow.bench import Bench
from tests.workflow.scenarios import Scenario, finished, stands_still, wake


async def a_vm_is_moved(bench: Bench) -> UUID:
    """MigrateVm: reserved, moved, read on both hosts."""
    await bench.add_vm("db", "h1")
    return await finished(bench, await bench.migrate("db", "h2"))


async def a_move_waits_for_room(bench: Bench) -> UUID:
    """MigrateVm: no other host has room until another VM ends."""
    await bench.add_vm("db", "h1")
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.migrate("db")
    await bench.waits(operation, "NO_ROOM")
    await bench.ended(await bench.stop("big-h3", force=True))
    await wake(bench, operation)
    return await finished(bench, operation)


async def a_move_is_paused_while_it_waits(bench: Bench) -> UUID:
    """MigrateVm: a person has it stand still, and go on once there is room."""
    await bench.add_vm("db", "h1")
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.migrate("db")
    await bench.waits(operation, "NO_ROOM")
    await stands_still(bench, operation)
    await bench.ended(await bench.stop("big-h3", force=True))
    await bench.act(ResumeOperation(operation_id=operation))
    return await finished(bench, operation)


async def a_move_that_libvirt_refuses_leaves_the_vm_where_it_is(bench: Bench) -> UUID:
    """MigrateVm: libvirt says no, and the target is made to refuse what may still come."""
    vm_id = await bench.add_vm("db", "h1")
    bench.centre.refusing[vm_id] = 1
    return await finished(bench, await bench.migrate("db", "h2"))


async def a_waiting_move_is_cancelled(bench: Bench) -> UUID:
    """MigrateVm: cancelled while it waits for room."""
    await bench.add_vm("db", "h1")
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.migrate("db")
    await bench.waits(operation, "NO_ROOM")
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_move_under_way_is_cancelled(bench: Bench) -> UUID:
    """MigrateVm: cancelled while libvirt is at it, which gives it up."""
    vm_id = await bench.add_vm("db", "h1")
    bench.centre.stalled.add(vm_id)
    operation = await bench.migrate("db", "h2")
    await under_way(bench, "h1", vm_id)
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_move_that_takes_too_long_is_given_up(bench: Bench) -> UUID:
    """MigrateVm: libvirt does not get on with it, and its time is over."""
    bench.centre.stalled.add(await bench.add_vm("db", "h1"))
    return await finished(bench, await bench.migrate("db", "h2"))


async def under_way(bench: Bench, host: str, vm_id: UUID) -> None:
    """Wait until libvirt is moving a guest away from a host."""

    async def moving() -> bool:
        return vm_id in bench.centre.hosts[host].moves

    await bench.until(moving, "libvirt was never told to move it")


MIGRATIONS: tuple[Scenario, ...] = (
    a_vm_is_moved,
    a_move_waits_for_room,
    a_move_is_paused_while_it_waits,
    a_move_that_libvirt_refuses_leaves_the_vm_where_it_is,
    a_waiting_move_is_cancelled,
    a_move_under_way_is_cancelled,
    a_move_that_takes_too_long_is_given_up,
)
"""The happy path first."""

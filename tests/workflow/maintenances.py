"""Scenarios on maintenance: each drives a fresh bench to one end; the drain's operation."""

from uuid import UUID

from domain.hosts import HostEvent
from engine.actions.operations import ResumeOperation
from tests.workflow.bench import Bench, relaying
from tests.workflow.migrations import under_way
from tests.workflow.scenarios import Scenario, finished, stands_still


async def a_host_is_drained(bench: Bench) -> UUID:
    """MaintainHost: two VMs are moved, and the host is out of service."""
    await bench.add_vm("db", "h1")
    await bench.add_vm("web", "h1")
    async with relaying(bench):
        return await finished(bench, await bench.maintain("h1"))


async def a_drain_waits_for_a_vm_that_fits_nowhere(bench: Bench) -> UUID:
    """MaintainHost: one VM has no room elsewhere until another one ends."""
    await bench.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.maintain("h1")
    await bench.waits(operation, "VMS_CANNOT_MOVE")
    await bench.ended(await bench.stop("big-h3", force=True))
    return await finished(bench, operation)


async def a_drain_is_paused_while_it_waits(bench: Bench) -> UUID:
    """MaintainHost: a person has it stand still, and go on once its VM has room elsewhere."""
    await bench.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.maintain("h1")
    await bench.waits(operation, "VMS_CANNOT_MOVE")
    await stands_still(bench, operation)
    await bench.ended(await bench.stop("big-h3", force=True))
    await bench.act(ResumeOperation(operation_id=operation))
    return await finished(bench, operation)


async def a_drain_is_cancelled(bench: Bench) -> UUID:
    """MaintainHost: cancelled while libvirt moves the first VM, which is given up."""
    vm_id = await bench.add_vm("db", "h1")
    bench.centre.stalled.add(vm_id)
    operation = await bench.maintain("h1")
    await under_way(bench, "h1", vm_id)
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_drain_whose_host_was_taken_over_fails(bench: Bench) -> UUID:
    """MaintainHost: somebody activates the host anew while a VM of it waits for room."""
    await bench.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await bench.maintain("h1")
    await bench.waits(operation, "VMS_CANNOT_MOVE")
    await bench.move_host("h1", HostEvent.ACTIVATE)
    return await finished(bench, operation)


MAINTENANCES: tuple[Scenario, ...] = (
    a_host_is_drained,
    a_drain_waits_for_a_vm_that_fits_nowhere,
    a_drain_is_paused_while_it_waits,
    a_drain_is_cancelled,
    a_drain_whose_host_was_taken_over_fails,
)
"""The happy path first."""

"""Scenarios on planned shutdowns and reboots: each drives a fresh bench; the host's operation."""

from uuid import UUID

from domain.hosts import HostEvent
from domain.planned import PlannedVms
from engine.actions.operations import ResumeOperation
from engine.actions.shut_down_host import RebootHost, ShutdownHost
from tests.fakes import Bmc, Gate
from tests.workflow.bench import Bench, relaying
from tests.workflow.migrations import under_way
from tests.workflow.scenarios import Scenario, finished, stands_still


async def shut_down(bench: Bench, host: str, vms: PlannedVms = PlannedVms.CONDITIONAL) -> UUID:
    """Ask for a host to be shut down; the operation."""
    return await bench.act(ShutdownHost(host_id=bench.hosts[host], vms=vms))


async def reboot(bench: Bench, host: str, vms: PlannedVms = PlannedVms.CONDITIONAL) -> UUID:
    """Ask for a host to be rebooted; the operation."""
    return await bench.act(RebootHost(host_id=bench.hosts[host], vms=vms))


async def a_host_is_rebooted_and_its_vms_wait_for_it(bench: Bench) -> UUID:
    """ShutDownHost: two VMs are shut down, and run there again in the new boot."""
    await bench.add_vm("db", "h1")
    await bench.add_vm("web", "h1", protected=False, after=("db",))
    async with relaying(bench):
        return await finished(bench, await reboot(bench, "h1"))


async def a_host_is_shut_down_and_its_vms_fail_over(bench: Bench) -> UUID:
    """ShutDownHost: two VMs are shut down and started on other hosts; its power is off."""
    await bench.add_vm("db", "h1")
    await bench.add_vm("web", "h1", protected=False, after=("db",))
    async with relaying(bench):
        return await finished(bench, await shut_down(bench, "h1"))


async def a_host_is_shut_down_and_its_vms_are_moved(bench: Bench) -> UUID:
    """ShutDownHost: one VM is moved away live, and the power is off."""
    await bench.add_vm("db", "h1")
    async with relaying(bench):
        return await finished(bench, await shut_down(bench, "h1", PlannedVms.MIGRATE))


async def a_shutdown_is_paused_while_it_waits(bench: Bench) -> UUID:
    """ShutDownHost: a person has it stand still, and go on once its VM has room elsewhere."""
    await bench.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await shut_down(bench, "h1", PlannedVms.MIGRATE)
    await bench.waits(operation, "VMS_CANNOT_MOVE")
    await stands_still(bench, operation)
    await bench.ended(await bench.stop("big-h3", force=True))
    await bench.act(ResumeOperation(operation_id=operation))
    return await finished(bench, operation)


async def a_shutdown_whose_power_stays_on_needs_a_person(bench: Bench) -> UUID:
    """ShutDownHost: the power controller takes the command and goes on reading on."""
    bench.centre.hosts["h1"].bmc = Bmc.SLOW_S
    bench.centre.hosts["h1"].cut_s = 3600
    return await finished(bench, await shut_down(bench, "h1"))


async def a_reboot_of_a_machine_that_does_not_come_back_needs_a_person(bench: Bench) -> UUID:
    """ShutDownHost: switched off and on, it answers nobody within its limit."""
    await bench.add_vm("db", "h1")
    bench.centre.hosts["h1"].boot_s = 3600
    async with relaying(bench):
        return await finished(bench, await reboot(bench, "h1"))


async def a_shutdown_is_cancelled_while_a_vm_is_moved(bench: Bench) -> UUID:
    """ShutDownHost: the move is given up, and the host serves on."""
    vm_id = await bench.add_vm("db", "h1")
    bench.centre.stalled.add(vm_id)
    operation = await shut_down(bench, "h1", PlannedVms.MIGRATE)
    await under_way(bench, "h1", vm_id)
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_reboot_is_cancelled_while_it_is_settled(bench: Bench) -> UUID:
    """ShutDownHost: cancelled in the new boot, it is left out of service."""
    gate = Gate()
    bench.centre.before["set_boot_mark"] = gate
    operation = await reboot(bench, "h1")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    gate.open()
    return await finished(bench, operation)


async def a_shutdown_whose_host_was_taken_over_fails(bench: Bench) -> UUID:
    """ShutDownHost: somebody activates the host anew while a VM of it waits for room."""
    await bench.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await shut_down(bench, "h1", PlannedVms.MIGRATE)
    await bench.waits(operation, "VMS_CANNOT_MOVE")
    await bench.move_host("h1", HostEvent.ACTIVATE)
    return await finished(bench, operation)


PLANNED: tuple[Scenario, ...] = (
    a_host_is_rebooted_and_its_vms_wait_for_it,
    a_host_is_shut_down_and_its_vms_fail_over,
    a_host_is_shut_down_and_its_vms_are_moved,
    a_shutdown_is_paused_while_it_waits,
    a_shutdown_whose_power_stays_on_needs_a_person,
    a_reboot_of_a_machine_that_does_not_come_back_needs_a_person,
    a_shutdown_is_cancelled_while_a_vm_is_moved,
    a_reboot_is_cancelled_while_it_is_settled,
    a_shutdown_whose_host_was_taken_over_fails,
)
"""The happy path first."""

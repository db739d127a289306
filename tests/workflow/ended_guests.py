"""Scenarios on guests that end by themselves: each gives the operation that sees to one."""

from uuid import UUID

from domain.inventory import OnHang, OnIoError
from domain.readings import StateReason
from engine.actions.clusters import ArmCluster
from engine.actions.vm_config import EditVm
from engine.actions.vm_recovery import RecoverVm
from simulator.world.storage import StorageState
from store import ended_runs
from store.rows import Row
from tests.fakes import Gate
from tests.workflow.bench import MONITOR, PERSON, Bench, relaying
from tests.workflow.scenarios import Scenario, cancel_is_known, finished, wake


async def last_run(bench: Bench, vm: str) -> Row:
    """The newest run of a VM."""
    run = await bench.database.read(lambda c: ended_runs.last(c, bench.vms[vm]))
    assert run is not None
    return run


async def report(bench: Bench, vm: str, *, hung: bool = False) -> UUID:
    """Report the end (or the silence) of a VM's guest, as a monitor does; the operation."""
    run = await last_run(bench, vm)
    action = RecoverVm(
        vm_id=bench.vms[vm], run_id=run["id"], why="gone", reported_by="m1", hung=hung
    )
    return await bench.act(action, MONITOR)


def end(bench: Bench, vm: str, reason: StateReason = StateReason.CRASHED) -> None:
    """The guest of a VM on h1 ends."""
    bench.centre.hosts["h1"].end(bench.vms[vm], reason, reason)


async def a_guest_that_crashed_is_started_again(bench: Bench) -> UUID:
    """RecoverVm: read, closed, and started on the same host by an operation of its own."""
    await bench.add_vm("db", "h1")
    end(bench, "db")
    async with relaying(bench):
        operation = await finished(bench, await report(bench, "db"))
        for start in await bench.children_of(operation, "vm.start"):
            await bench.ended(start["id"])
    return operation


async def a_guest_that_was_shut_down_from_inside_stays_down(bench: Bench) -> UUID:
    """RecoverVm: read and closed."""
    await bench.add_vm("db", "h1")
    end(bench, "db", StateReason.SHUTDOWN)
    return await finished(bench, await report(bench, "db"))


async def a_guest_that_runs_is_left_alone(bench: Bench) -> UUID:
    """RecoverVm: the report was wrong."""
    await bench.add_vm("db", "h1")
    return await finished(bench, await report(bench, "db"))


async def a_guest_whose_host_falls_silent_is_left_to_its_recovery(bench: Bench) -> UUID:
    """RecoverVm: nothing can be read, so nothing is believed."""
    await bench.add_vm("db", "h1")
    end(bench, "db")
    bench.centre.hosts["h1"].reachable = False
    return await finished(bench, await report(bench, "db"))


async def a_guest_that_may_live_elsewhere_is_looked_at_again(bench: Bench) -> UUID:
    """RecoverVm: held while its memory lies in a file, and over once it is gone for good."""
    await bench.add_vm("db", "h1", protected=False)
    end(bench, "db", StateReason.SAVED)
    operation = await report(bench, "db")
    await bench.waits(operation, "GUEST_SAVED")
    bench.centre.hosts["h1"].domains[bench.vms["db"]].reason = StateReason.UNKNOWN
    await bench.workflow(operation).signal("look_again")
    return await finished(bench, operation)


async def a_vm_that_was_restarted_too_often_waits_for_its_next_try(bench: Bench) -> UUID:
    """RecoverVm: closed, then waiting; its limits are raised, and it is started."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, max_restart=0, max_relocate=0))
    end(bench, "db")
    operation = await report(bench, "db")
    await bench.waits(operation, "RESTARTS_SPENT")
    await bench.act(EditVm(vm_id=vm_id, max_restart=1))
    async with relaying(bench):
        await bench.workflow(operation).signal("look_again")
        await finished(bench, operation)
        (start,) = await bench.children_of(operation, "vm.start")
        await bench.ended(start["id"])
    return operation


async def a_look_at_a_guest_is_cancelled(bench: Bench) -> UUID:
    """RecoverVm: cancelled while its host is being read; it ends with that look."""
    await bench.add_vm("db", "h1", protected=False)
    end(bench, "db", StateReason.SAVED)
    gate = bench.centre.before["lookup"] = Gate()
    operation = await report(bench, "db")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    gate.open()
    return await finished(bench, operation)


async def a_next_try_is_cancelled(bench: Bench) -> UUID:
    """RecoverVm: cancelled while it waits for its next try."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, max_restart=0, max_relocate=0))
    end(bench, "db")
    operation = await report(bench, "db")
    await bench.waits(operation, "RESTARTS_SPENT")
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    return await finished(bench, operation)


async def a_disarmed_cluster_holds_what_was_reported_before(bench: Bench) -> UUID:
    """RecoverVm: automatic action is switched off in the middle, and on again."""
    await bench.add_vm("db", "h1", protected=False)
    end(bench, "db", StateReason.SAVED)
    operation = await report(bench, "db")
    await bench.waits(operation, "GUEST_SAVED")
    await bench.act(ArmCluster(cluster_id=bench.cluster_id, armed=False), PERSON)
    bench.centre.hosts["h1"].domains[bench.vms["db"]].reason = StateReason.UNKNOWN
    await bench.workflow(operation).signal("look_again")
    await bench.waits(operation, "DISARMED")
    await bench.arm(True)
    await wake(bench, operation)
    return await finished(bench, operation)


async def a_guest_that_is_paused_goes_on(bench: Bench) -> UUID:
    """RecoverVm: its disk fails it twice, and then serves it again."""
    vm_id = await bench.add_vm("db", "h1")
    bench.centre.set_storage(StorageState.GONE)
    bench.centre.hosts["h1"].fail_io(vm_id)
    operation = await report(bench, "db")
    await bench.waits(operation, "GUEST_PAUSED")
    bench.centre.set_storage(StorageState.OK)
    await bench.workflow(operation).signal("look_again")
    return await finished(bench, operation)


async def a_guest_that_is_paused_is_left_to_a_person(bench: Bench) -> UUID:
    """RecoverVm: noted, and not touched."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, on_io_error=OnIoError.LEAVE_PAUSED))
    bench.centre.hosts["h1"].fail_io(vm_id)
    return await finished(bench, await report(bench, "db"))


async def a_guest_that_hangs_is_ended_and_started_again(bench: Bench) -> UUID:
    """RecoverVm: its agent is asked afresh, it is ended, and started by an operation of its own."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, on_hang=OnHang.RESTART))
    bench.centre.hosts["h1"].hang(vm_id)
    async with relaying(bench):
        operation = await finished(bench, await report(bench, "db", hung=True))
        for start in await bench.children_of(operation, "vm.start"):
            await bench.ended(start["id"])
    return operation


async def a_guest_that_came_to_is_left_alone(bench: Bench) -> UUID:
    """RecoverVm: its agent answers when it is asked afresh."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, on_hang=OnHang.RESTART))
    return await finished(bench, await report(bench, "db", hung=True))


async def a_guest_that_hangs_too_often_is_left_as_it_is(bench: Bench) -> UUID:
    """RecoverVm: its restarts are spent, so it waits; it comes to meanwhile."""
    vm_id = await bench.add_vm("db", "h1")
    await bench.act(EditVm(vm_id=vm_id, on_hang=OnHang.RESTART, max_restart=0, max_relocate=0))
    bench.centre.hosts["h1"].hang(vm_id)
    operation = await report(bench, "db", hung=True)
    await bench.waits(operation, "RESTARTS_SPENT")
    bench.centre.hosts["h1"].domains[vm_id].hung = False
    await bench.workflow(operation).signal("look_again")
    return await finished(bench, operation)


HUNG_GUESTS: tuple[Scenario, ...] = (
    a_guest_that_hangs_is_ended_and_started_again,
    a_guest_that_came_to_is_left_alone,
    a_guest_that_hangs_too_often_is_left_as_it_is,
)
ENDED_GUESTS: tuple[Scenario, ...] = (
    a_guest_that_crashed_is_started_again,
    a_guest_that_was_shut_down_from_inside_stays_down,
    a_guest_that_runs_is_left_alone,
    a_guest_whose_host_falls_silent_is_left_to_its_recovery,
    a_guest_that_may_live_elsewhere_is_looked_at_again,
    a_vm_that_was_restarted_too_often_waits_for_its_next_try,
    a_next_try_is_cancelled,
    a_look_at_a_guest_is_cancelled,
    a_disarmed_cluster_holds_what_was_reported_before,
    a_guest_that_is_paused_goes_on,
    a_guest_that_is_paused_is_left_to_a_person,
    *HUNG_GUESTS,
)
"""The happy path stands first."""

"""Scenarios on guests: each drives a fresh bench to one end and gives the operation to look at.

The same functions serve the tests that assert what came of them, the fault injection, and the
recorder of golden histories, so that what is recorded is what is tested.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from domain.operations import workflow_id
from engine.actions.fence_tests import CheckFencing
from engine.actions.operations import PauseOperation, ResumeOperation
from engine.records.runs import RunRecords
from tests.fakes import Bmc, Gate
from tests.workflow.bench import Bench
from tests.workflow.held_records import held
from worker.temporal_client import TemporalWorkflows

Scenario = Callable[[Bench], Awaitable[UUID]]


async def a_vm_starts(bench: Bench) -> UUID:
    """StartVm: placed, defined, started, read back."""
    await bench.add_vm("db")
    return await finished(bench, await bench.start("db"))


async def _waits_for_room(bench: Bench) -> UUID:
    for name in ("h1", "h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    await bench.add_vm("db")
    operation = await bench.start("db")
    await bench.waits(operation, "NO_ROOM")
    return operation


async def a_start_waits_for_room(bench: Bench) -> UUID:
    """StartVm: no host has room until another VM ends."""
    operation = await _waits_for_room(bench)
    await bench.ended(await bench.stop("big-h2", force=True))
    await wake(bench, operation)
    return await finished(bench, operation)


async def a_start_is_paused_while_it_waits(bench: Bench) -> UUID:
    """StartVm: a person has it stand still, and go on once there is room."""
    operation = await _waits_for_room(bench)
    await stands_still(bench, operation)
    await bench.ended(await bench.stop("big-h2", force=True))
    await bench.act(ResumeOperation(operation_id=operation))
    return await finished(bench, operation)


async def stands_still(bench: Bench, operation: UUID) -> None:
    """A person has an operation stand still; wait until it does."""
    await bench.act(PauseOperation(operation_id=operation))

    async def paused() -> bool:
        return bool((await bench.operation(operation))["state"] == "paused")

    await bench.until(paused, "it never stood still")


async def a_start_that_libvirt_refuses_is_undone(bench: Bench) -> UUID:
    """StartVm: the host says no, and keeps nothing."""
    vm_id = await bench.add_vm("db")
    bench.centre.refusing[vm_id] = 1
    return await finished(bench, await bench.start("db", "h1"))


async def a_guest_that_ends_at_once_is_a_failed_start(bench: Bench) -> UUID:
    """StartVm: created, and not running when it is read back."""
    vm_id = await bench.add_vm("db")
    bench.centre.short_lived.add(vm_id)
    return await finished(bench, await bench.start("db", "h1"))


async def a_start_that_one_host_refuses_is_tried_on_another(bench: Bench) -> UUID:
    """StartVm: undone where it failed, and started elsewhere."""
    vm_id = await bench.add_vm("db")
    bench.centre.refusing[vm_id] = 1
    return await finished(bench, await bench.start("db"))


async def a_start_that_every_host_refuses_fails(bench: Bench) -> UUID:
    """StartVm: all hosts refuse it, until its tries are used up."""
    vm_id = await bench.add_vm("db")
    bench.centre.refusing[vm_id] = 100
    return await finished(bench, await bench.start("db"))


async def a_waiting_start_is_cancelled(bench: Bench) -> UUID:
    """StartVm: cancelled while it waits for room."""
    operation = await _waits_for_room(bench)
    await bench.workflow(operation).cancel()
    return await finished(bench, operation)


async def a_start_is_cancelled_while_it_is_placed(bench: Bench) -> UUID:
    """StartVm: cancelled while it looks for room, of which there is none."""
    for name in ("h1", "h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    await bench.add_vm("db")
    async with held(bench, RunRecords, "place") as gate:
        operation = await bench.start("db")
        await gate.reached.wait()
        await bench.workflow(operation).cancel()
        await cancel_is_known(bench, operation)
    return await finished(bench, operation)


async def a_start_under_way_is_cancelled(bench: Bench) -> UUID:
    """StartVm: cancelled while the host defines the guest, which ends well all the same."""
    await bench.add_vm("db")
    gate = bench.centre.before["define"] = Gate()
    operation = await bench.start("db", "h1")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    gate.open()
    return await finished(bench, operation)


async def a_vm_stops_by_itself(bench: Bench) -> UUID:
    """StopVm: asked, ended within its grace."""
    await bench.add_vm("db", "h1")
    return await finished(bench, await bench.stop("db"))


async def a_deaf_vm_is_stopped_hard(bench: Bench) -> UUID:
    """StopVm: asked, still there after its grace, ended hard."""
    bench.centre.deaf.add(await bench.add_vm("db", "h1"))
    return await finished(bench, await bench.stop("db"))


async def a_vm_is_stopped_by_force(bench: Bench) -> UUID:
    """StopVm: ended hard at once."""
    await bench.add_vm("db", "h1")
    return await finished(bench, await bench.stop("db", force=True))


async def a_stop_is_cancelled_before_the_grace_is_over(bench: Bench) -> UUID:
    """StopVm: cancelled while the guest is shutting down."""
    await bench.add_vm("db", "h1")
    gate = bench.centre.before["lookup"] = Gate()
    operation = await bench.stop("db")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    gate.open()
    return await finished(bench, operation)


async def a_stop_on_a_host_that_falls_silent_fails(bench: Bench) -> UUID:
    """StopVm: the host is not heard any more while the guest's end is awaited."""
    await bench.add_vm("db", "h1")
    gate = bench.centre.before["lookup"] = Gate()
    operation = await bench.stop("db")
    await gate.reached.wait()
    bench.centre.hosts["h1"].reachable = False
    gate.open()
    return await finished(bench, operation)


async def a_host_is_activated(bench: Bench) -> UUID:
    """ActivateHost: switched on after a power cut, one old copy destroyed, admitted."""
    await bench.add_vm("batch", "h1", protected=False)
    bench.centre.hosts["h1"].lose_power()
    await bench.ended(await bench.report("h1"))
    return await finished(bench, await bench.activate("h1"))


async def a_host_that_never_answers_is_left_out_of_service(bench: Bench) -> UUID:
    """ActivateHost: on, and no answer within the limit."""
    bench.centre.hosts["h1"].lose_power()
    await bench.ended(await bench.report("h1"))
    bench.centre.hosts["h1"].reachable = False
    return await finished(bench, await bench.activate("h1"))


async def an_activation_is_cancelled(bench: Bench) -> UUID:
    """ActivateHost: cancelled while the host boots."""
    bench.centre.hosts["h1"].lose_power()
    await bench.ended(await bench.report("h1"))
    gate = bench.centre.before["open"] = Gate()
    operation = await bench.activate("h1")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    gate.open()
    return await finished(bench, operation)


async def fence_devices_are_tested(bench: Bench) -> UUID:
    """CheckFencing: the host's controller answers and manages the host's own machine."""
    return await finished(bench, await bench.act(CheckFencing(host_id=bench.hosts["h1"])))


async def a_dead_fence_device_fails_its_test(bench: Bench) -> UUID:
    """CheckFencing: one of two controllers does not answer; both are recorded."""
    await bench.add_device("h1", "bmc-h1-2")
    bench.centre.hosts["h1"].bmcs["bmc-h1-2"] = Bmc.DEAD
    return await finished(bench, await bench.act(CheckFencing(host_id=bench.hosts["h1"])))


async def a_fence_test_is_cancelled(bench: Bench) -> UUID:
    """CheckFencing: cancelled while a controller is asked."""
    gate = bench.centre.before["bmc_read"] = Gate()
    operation = await bench.act(CheckFencing(host_id=bench.hosts["h1"]))
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    bench.centre.before.pop("bmc_read")
    gate.open()
    return await finished(bench, operation)


async def finished(bench: Bench, operation: UUID) -> UUID:
    """Wait until the operation has ended and its workflow has completed."""
    await bench.ended(operation)
    await bench.workflow(operation).result()
    return operation


async def wake(bench: Bench, operation: UUID) -> None:
    """Have it look again; it may have looked by itself meanwhile, and have ended."""
    await TemporalWorkflows(bench.client).signal(workflow_id(operation, 1), "look_again")


async def waited(bench: Bench, operation: UUID) -> bool:
    """Whether its workflow has waited for a time to pass."""
    history = await bench.workflow(operation).fetch_history()
    return any(event.HasField("timer_started_event_attributes") for event in history.events)


async def cancel_is_known(bench: Bench, operation: UUID, attempt: int = 1) -> None:
    """Wait until the workflow has seen the request, whatever its step does about it."""

    async def seen() -> bool:
        history = await bench.workflow(operation, attempt).fetch_history()
        kinds = [event.WhichOneof("attributes") for event in history.events]
        asked = "workflow_execution_cancel_requested_event_attributes"
        done = "workflow_task_completed_event_attributes"
        return asked in kinds and done in kinds[kinds.index(asked) :]

    await bench.until(seen, "the cancel request never reached the workflow")


SCENARIOS: dict[str, tuple[Scenario, ...]] = {
    "StartVm": (
        a_vm_starts,
        a_start_waits_for_room,
        a_start_is_paused_while_it_waits,
        a_start_that_libvirt_refuses_is_undone,
        a_guest_that_ends_at_once_is_a_failed_start,
        a_start_that_one_host_refuses_is_tried_on_another,
        a_start_that_every_host_refuses_fails,
        a_waiting_start_is_cancelled,
        a_start_under_way_is_cancelled,
        a_start_is_cancelled_while_it_is_placed,
    ),
    "StopVm": (
        a_vm_stops_by_itself,
        a_deaf_vm_is_stopped_hard,
        a_vm_is_stopped_by_force,
        a_stop_is_cancelled_before_the_grace_is_over,
        a_stop_on_a_host_that_falls_silent_fails,
    ),
    "ActivateHost": (
        a_host_is_activated,
        a_host_that_never_answers_is_left_out_of_service,
        an_activation_is_cancelled,
    ),
    "CheckFencing": (
        fence_devices_are_tested,
        a_dead_fence_device_fails_its_test,
        a_fence_test_is_cancelled,
    ),
}
"""The happy path of each workflow stands first."""

"""Scenarios on batches: each drives a fresh bench to one end and gives the batch's operation."""

from uuid import UUID

from engine.actions.operations import ResumeOperation
from engine.actions.vms import StartVm
from engine.batches import BatchOptions
from tests.fakes import Gate
from tests.workflow.bench import PERSON, Bench, relaying
from tests.workflow.scenarios import Scenario, cancel_is_known, finished, stands_still


async def asked(bench: Bench, at_once: int, *names: str) -> UUID:
    """Ask for the start of these VMs in one batch; its operation."""
    items = [StartVm(vm_id=bench.vms[name]) for name in names]
    options = BatchOptions(at_once=at_once)
    receipt = await bench.backend.run_multiple_actions(items, PERSON, options)
    operation = await bench.begun(receipt.operation_id)
    for row in await bench.children_of(operation, "vm.start"):
        await bench.begun(row["id"])
    return operation


async def a_batch_of_starts_succeeds(bench: Bench) -> UUID:
    """RunBatch: three starts, two at a time."""
    for name in ("a", "b", "c"):
        await bench.add_vm(name)
    async with relaying(bench):
        return await finished(bench, await asked(bench, 2, "a", "b", "c"))


async def a_batch_with_a_start_that_fails_is_incomplete(bench: Bench) -> UUID:
    """RunBatch: one of two starts is refused by libvirt."""
    await bench.add_vm("a")
    bench.centre.refusing[await bench.add_vm("b")] = 3
    return await finished(bench, await asked(bench, 2, "a", "b"))


async def a_batch_is_paused_in_the_middle(bench: Bench) -> UUID:
    """RunBatch: a person has it stand still while its first start waits for room."""
    for name in ("h1", "h2", "h3"):
        await bench.add_vm(f"big-{name}", name, memory_mib=1000)
    await bench.add_vm("a")
    await bench.add_vm("b")
    operation = await asked(bench, 1, "a", "b")

    async def first_waits() -> bool:
        # The first starts are let go together with the batch, so that one may wait before the
        # batch itself has begun, and only what has begun can be paused.
        batch = await bench.operation(operation)
        found = await bench.children_of(operation, "vm.start")
        return batch["state"] == "running" and "NO_ROOM" in [row["reason_code"] for row in found]

    await bench.until(first_waits, "its first start never waited for room")
    await stands_still(bench, operation)
    await bench.ended(await bench.stop("big-h2", force=True))
    await bench.act(ResumeOperation(operation_id=operation))
    async with relaying(bench):
        return await finished(bench, operation)


async def a_batch_is_cancelled_in_the_middle(bench: Bench) -> UUID:
    """RunBatch: one start is under way, one is held; both are cancelled with it."""
    await bench.add_vm("a")
    await bench.add_vm("b")
    gate = bench.centre.before["define"] = Gate()
    operation = await asked(bench, 1, "a", "b")
    await gate.reached.wait()
    await bench.workflow(operation).cancel()
    await cancel_is_known(bench, operation)
    async with relaying(bench):
        # Its children are told by the outbox, and a start that ends well before it is told is none
        # that was cancelled.
        rows = await bench.children_of(operation, "vm.start")
        (under_way,) = [row["id"] for row in rows if row["target_name"] == "a"]
        await cancel_is_known(bench, under_way)
        gate.open()
        return await finished(bench, operation)


BATCHES: tuple[Scenario, ...] = (
    a_batch_of_starts_succeeds,
    a_batch_with_a_start_that_fails_is_incomplete,
    a_batch_is_paused_in_the_middle,
    a_batch_is_cancelled_in_the_middle,
)
"""The happy path stands first."""

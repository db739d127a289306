"""Rows of hosts that are shut down by plan, and of the VMs that come back after it.

Who starts such a VM is whoever looks first: the workflow of the plan, the activation of its host,
or the relay's duty where neither is there any more. Each look is one transaction.
"""

from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.host_power import PowerStep
from activities.planned import PlannedStep, Returned
from domain.errors import Refused, Superseded
from domain.hosts import HostEvent
from domain.inventory import HostState, RunState
from domain.operations import OperationState
from domain.planned import HostPower, Return, ReturnFacts, what_next
from engine.acceptance import Terms
from engine.actions.vms import StartVm, StartVmAction, StopVm, StopVmAction
from engine.backend import Backend
from engine.cancelling import cancel_operation, of_operation
from engine.clock import Clock, utc_now
from engine.records.fencing import FenceRecords
from engine.rows import context_of
from store import hosts, inventory, locks, operations, planned, runs
from store.database import Database
from store.rows import Row

log = structlog.get_logger()

ANSWERS = (HostState.UP, HostState.PREPARING_MAINTENANCE, HostState.MAINTENANCE)
"""States of a host that can be told to end a guest."""


class PlannedRecords(FenceRecords):
    """Implements the ports of `activities.host_power` and `activities.planned`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        super().__init__(database, clock)
        self._database = database
        self._backend = backend
        self._clock = clock

    async def claim_power(self, step: PowerStep, power: HostPower) -> None:
        """Claim the switching; Superseded unless the host is in maintenance, empty and ours."""
        host, mine = step.host, (step.operation_id, step.attempt)
        if not await self._database.write(
            lambda c: planned.claim_power(c, host.host_id, host.epoch, *mine, power)
        ):
            raise _moved_on(step)

    async def note_power(self, step: PowerStep, power: HostPower, why: str) -> None:
        """Keep what was read back."""
        host, now = step.host, self._clock()
        await self._database.write(
            lambda c: planned.note_power(c, host.host_id, host.epoch, power, why, now)
        )

    async def begin_return(self, step: PowerStep) -> None:
        """Let the host be reconciled; Superseded when it is in other hands."""
        host, mine, now = step.host, (step.operation_id, step.attempt), self._clock()
        why = "it has rebooted by plan"
        if not await self._database.write(
            lambda c: planned.begin_return(c, host.host_id, host.epoch, *mine, why, now)
        ):
            raise _moved_on(step)

    async def bring_back(self, step: PlannedStep) -> Returned:
        """Order the starts that are due, and tell how all of them stand."""

        async def work(connection: AsyncConnection) -> Returned:
            rows = await planned.remembered(connection, operation_id=step.operation_id)
            await start_due(connection, self._backend, rows, step.operation_id)
            return await _standing(connection, step)

        return await self._database.write(work)

    async def give_up(self, step: PlannedStep) -> str:
        """Let the host serve on where it still does; a sentence about what is left how."""

        async def work(connection: AsyncConnection) -> str:
            plan = await operations.get(connection, step.operation_id)
            if plan is None or plan["state"] not in operations.OPEN:
                return f"{step.host.name} is left to whoever took it over"
            for child in await operations.children(connection, step.operation_id):
                await self._end_child(connection, child)
            why, now = "its shutdown was cancelled", self._clock()
            host_id, epoch = step.host.host_id, step.host.epoch
            if not await hosts.move(connection, host_id, HostEvent.STAY, why, now):
                # An earlier try was lost while it reconciled the host; this one never got there.
                await planned.leave_out(connection, host_id, epoch, plan["id"], why, now)
            return await _left(connection, step)

        return await self._database.write(work)

    async def _end_child(self, connection: AsyncConnection, child: Row) -> None:
        # A guest that was asked to end may do so whatever happens: its stop goes on to its end, and
        # the VM is started again.
        asked = child["kind"] == StopVmAction.kind and child["run_id"] is not None
        if child["state"] in operations.OPEN and child["kind"] != StartVmAction.kind and not asked:
            tx = of_operation(self._backend.transaction(connection, context_of(child)), child)
            await cancel_operation(tx, child)
            await self._backend.write_out(tx)

    async def start_remembered(self) -> int:
        """Order the starts that are due and that no plan under way sees to; how many.

        Repeatable, and safe beside others.
        """
        rows = await self._database.read(planned.remembered)
        started = 0
        for row in rows:
            if row["operation_state"] in operations.OPEN:
                continue
            try:
                started += await self._database.write(partial(self._pick_up, row["vm_id"]))
            except Refused as error:  # the others are to be started all the same
                log.warning("not started", vm=row["name"], code=error.code, why=error.detail)
        return started

    async def _pick_up(self, vm_id: UUID, connection: AsyncConnection) -> int:
        row = await planned.of_vm(connection, vm_id)
        if row is None:
            return 0
        parent = row["operation_id"] if row["operation_state"] else None
        parent = parent or await operations.newest_of(
            connection, ("host.activate",), row["host_id"]
        )
        if parent is None:
            return 0
        if row["start_id"] is None:
            await self._stop_again(connection, row, parent)
        return await start_due(connection, self._backend, [row], parent)

    async def _stop_again(self, connection: AsyncConnection, row: Row, parent_id: UUID) -> None:
        run = await runs.active_run(connection, row["vm_id"])
        if run is None or what_next(await _facts(connection, row, after=False)) is not Return.STOP:
            return
        host = await inventory.get(connection, "host", run["host_id"])
        parent = await operations.get(connection, parent_id)
        if host is None or host["state"] not in ANSWERS or parent is None:
            return
        stop = StopVm(vm_id=row["vm_id"], planned=True)
        reason = f"its stop with {row['host_name']} was left half done"
        await self._backend.run_child(stop, parent, Terms(), reason=reason)


async def start_due(
    connection: AsyncConnection, backend: Backend, rows: list[Row], parent_id: UUID
) -> int:
    """Start those of these VMs that may start now, as parts of an operation; how many."""
    parent = await operations.get(connection, parent_id)
    if parent is None or not rows:
        return 0
    open_ = [row for row in rows if not await _is_settled(connection, row)]
    depends = await inventory.dependencies(connection)
    waiting = await planned.remembered_vms(connection)
    started = 0
    for row in open_:
        after = any(other in waiting for other in depends.get(row["vm_id"], ()))
        facts = await _facts(connection, row, after=after)
        if row["start_id"] is None and what_next(facts) is Return.START:
            started += await _start(connection, backend, row, parent)
    return started


async def _is_settled(connection: AsyncConnection, row: Row) -> bool:
    """Whether nothing is left to do for a VM; then it is remembered no longer."""
    if row["start_id"] is not None:
        settled = await _has_ended(connection, row["start_id"])
    else:
        facts = await _facts(connection, row, after=False)
        settled = what_next(facts) is Return.FORGET
    return settled and await planned.forget(connection, row["vm_id"])


async def _start(connection: AsyncConnection, backend: Backend, row: Row, parent: Row) -> bool:
    prefer_id = row["host_id"] if row["frozen"] else None
    start = StartVm(vm_id=row["vm_id"], prefer_id=prefer_id)
    reason = f"{row['host_name']} was shut down by plan"
    start_id = await backend.run_child(start, parent, Terms(), reason=reason)
    return await planned.note_start(connection, row["vm_id"], start_id)


async def _facts(connection: AsyncConnection, row: Row, *, after: bool) -> ReturnFacts:
    removed = row["host_removed_at"] is not None
    run = await runs.active_run(connection, row["vm_id"])
    return ReturnFacts(
        frozen=row["frozen"],
        wanted=row["wanted"] and row["vm_removed_at"] is None,
        running=run is not None,
        stopping=run is not None and run["state"] == RunState.STOPPING,
        busy=await locks.holder(connection, "vm", row["vm_id"]) is not None,
        planned=row["operation_state"] in operations.OPEN,
        host_state=None if removed else HostState(row["host_state"]),
        after=after,
    )


async def _has_ended(connection: AsyncConnection, operation_id: UUID) -> bool:
    row = await operations.get(connection, operation_id)
    return row is None or row["state"] not in operations.OPEN


async def _standing(connection: AsyncConnection, step: PlannedStep) -> Returned:
    """How the starts of a plan stand: those that run, that wait for something, that failed."""
    starts = [
        child
        for child in await operations.children(connection, step.operation_id)
        if child["kind"] == StartVmAction.kind
    ]
    newest = {child["target_name"]: child for child in starts}
    left = await planned.remembered(connection, operation_id=step.operation_id)
    waiting = {
        name: f"{name}: {child['waiting_for']}"
        for name, child in newest.items()
        if child["state"] == OperationState.WAITING
    }
    under_way = [
        child
        for name, child in newest.items()
        if child["state"] in operations.OPEN and name not in waiting
    ]
    good = [c for c in newest.values() if c["state"] == OperationState.SUCCEEDED]
    bad = [c for c in newest.values() if c["state"] in ("failed", "needs_attention")]
    held = [row["name"] for row in left if row["name"] not in newest]
    return Returned(
        running=len(good),
        under_way=len(under_way),
        waiting=tuple(waiting[name] for name in sorted(waiting)),
        failed=tuple(sorted(f"{c['target_name']}: {_why(c)}" for c in bad)),
        held=tuple(sorted(held)),
    )


def _why(child: Row) -> str:
    problem = child["problem"] or {}
    return str(problem.get("detail") or child["state"])


async def _left(connection: AsyncConnection, step: PlannedStep) -> str:
    host = await inventory.get(connection, "host", step.host.host_id)
    assert host is not None
    rows = await planned.remembered(connection, operation_id=step.operation_id)
    power = f", its power {host['power'].replace('_', ' ')}" if host["power"] else ""
    said = f"{host['name']} is {host['state']}{power}"
    if not rows:
        return said
    names = ", ".join(row["name"] for row in rows)
    back = host["state"] == HostState.UP or not any(row["frozen"] for row in rows)
    when = "by itself" if back else f"once it is active (`holdfast host activate {host['name']}`)"
    return f"{said}; started again {when}: {names}"


def _moved_on(step: PowerStep) -> Superseded:
    return Superseded(
        "HOST_MOVED_ON",
        f"{step.host.name} is not empty and in maintenance at epoch {step.host.epoch} any more, or "
        "this operation is over: its power was left alone",
        next_step="look at the host, and ask again",
        host=step.host.name,
        epoch=step.host.epoch,
    )

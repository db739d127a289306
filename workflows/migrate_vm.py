"""Move one running VM to another host: reserve a place, have libvirt move it, read who has it.

Phases      reserving (may wait for room) → moving → settling → done.
Invariants  from the reservation on the run names both hosts, and nothing starts the VM elsewhere.
            The operation does not end before both hosts were read, or are proven dead: whatever
            libvirt answered, or whether anybody was there to hear it.
Pause       honoured until its place is reserved.
Races       A host that dies meanwhile is recovered without this VM: its certificate is what the
            settling waits for. libvirt goes on by itself when worker or engine die; the next try
            follows what it finds.
Limit       what takes longer than it may is given up as if it were cancelled, and fails.
Cancel      libvirt's job is given up, and both hosts are read: a guest that has arrived by then
            stays where it is, and the summary says so.
"""

from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.migrating import Migrating, MoveOrder, Reservation, ReserveOrder, Settled
from domain.migration import Settling, too_slow
from domain.operations import Outcome, Problem
from domain.orders import MigrateVmOrder, MigrationRef
from workflows import options
from workflows.operation import (
    failure_of,
    go_on,
    go_on_anew,
    next_look_s,
    problem_of,
    run_operation,
    show_running,
    show_waiting,
    to_its_end,
    wait_up_to,
)
from workflows.pausing import Pausing


@workflow.defn
class MigrateVm:
    """The durable operation `vm.migrate`."""

    @workflow.init
    def __init__(self, order: MigrateVmOrder) -> None:
        self._order = order
        self._migration: MigrationRef | None = None
        self._settled: Settled | None = None
        self._moving_since: datetime | None = None
        self._looks_wanted = 0
        self._pausing = Pausing(order)

    @workflow.run
    async def run(self, order: MigrateVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._migrate, self._undo)

    @workflow.signal
    def look_again(self) -> None:
        """Capacity, or what is known of a host, may have changed: do not wait for the next look."""
        self._looks_wanted += 1

    async def _migrate(self) -> str:
        reserved = await self._reserve()
        if reserved.migration is None:
            return reserved.summary
        self._migration = reserved.migration
        self._moving_since = workflow.now()
        problem = await self._move()
        settled = await to_its_end(self._settle(abort=problem is not None))
        if settled.move is Settling.ON_TARGET:
            return settled.summary
        go_on()
        if problem is None and self._is_late():
            problem = too_slow(self._order.vm_name, self._order.policy.migrate_deadline_s)
        raise failure_of(_failure(settled, problem))

    async def _reserve(self) -> Reservation:
        order = self._order
        wanted = ReserveOrder(
            operation_id=order.operation_id,
            attempt=order.attempt,
            vm_id=order.vm_id,
            host_id=order.host_id,
            per_host=order.policy.migrations_per_host,
        )
        waited = False
        while True:
            await self._pausing.checkpoint()
            looks = self._looks_wanted
            reserved = await to_its_end(
                workflow.execute_activity_method(
                    Migrating.reserve,
                    wanted,
                    **options.decide(f"find a host for {order.vm_name}"),
                )
            )
            self._migration = reserved.migration
            go_on()
            if reserved.no_room is None:
                if waited:
                    await show_running(order)
                return reserved
            await show_waiting(order, "NO_ROOM", reserved.no_room)
            waited = True
            await self._wait(looks, order.policy.capacity_retry_s, "look for room again")

    async def _move(self) -> Problem | None:
        """Have libvirt move it; why that went wrong, or None. What is true is read afterwards."""
        assert self._migration is not None
        policy, target = self._order.policy, self._migration.target
        workflow.set_current_details(f"moving {self._order.vm_name} to {target.name}")
        try:
            await workflow.execute_activity_method(
                Migrating.move,
                MoveOrder(migration=self._migration, policy=policy),
                **options.migrate(policy, f"move {self._order.vm_name} to {target.name}"),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return problem_of(error)
        go_on()
        return None

    async def _settle(self, *, abort: bool) -> Settled:
        """Read both hosts until it is known who has the VM."""
        assert self._migration is not None
        policy, name = self._order.policy, self._order.vm_name
        waited = False
        wait_s = policy.migrate_look_s
        while True:
            looks = self._looks_wanted
            # Nothing interrupts the settling, but a request to cancel has libvirt give it up.
            abort = abort or self._is_late() or workflow.cancellation_reason() is not None
            step = MoveOrder(migration=self._migration, policy=policy, abort=abort)
            settled = await self._look(step, f"read both hosts of {name}")
            if settled.move is not Settling.WAIT:
                if waited:
                    await show_running(self._order)
                self._settled = settled
                return settled
            await show_waiting(self._order, settled.code, settled.detail)
            waited = True
            await self._wait_for_look(looks, wait_s)
            wait_s = next_look_s(wait_s, policy)

    def _is_late(self) -> bool:
        """Whether libvirt has had the time that it may take."""
        limit = options.seconds(self._order.policy.migrate_deadline_s)
        return self._moving_since is not None and workflow.now() - self._moving_since >= limit

    async def _look(self, step: MoveOrder, summary: str) -> Settled:
        try:
            return await workflow.execute_activity_method(
                Migrating.settle, step, **options.settle(self._order.policy, summary)
            )
        except ActivityError as error:
            problem = problem_of(error)
            return Settled(move=Settling.WAIT, code=problem.code, detail=problem.detail)

    async def _wait_for_look(self, looks: int, limit_s: float) -> None:
        await wait_up_to(limit_s, lambda: self._looks_wanted > looks, "read both hosts again")

    async def _wait(self, looks: int, limit_s: float, summary: str) -> None:
        # The next run would not know of a pause.
        if workflow.info().is_continue_as_new_suggested() and not self._pausing.wanted:
            go_on_anew(self._order)
        await wait_up_to(
            limit_s, lambda: self._looks_wanted > looks or self._pausing.wanted, summary
        )

    async def _undo(self) -> str:
        if self._migration is None:
            return "nothing was moved"
        settled = self._settled or await self._settle(abort=True)
        return settled.summary


def _failure(settled: Settled, problem: Problem | None) -> Problem:
    if settled.move is Settling.NOWHERE:
        return Problem(
            code="VM_LOST_IN_MIGRATION",
            detail=settled.summary,
            next_step="look at the incidents of both hosts; a protected VM is started by a part of "
            "this operation",
        )
    return problem or Problem(
        code="MIGRATION_FAILED",
        detail=f"{settled.summary}: libvirt did not move it",
        next_step="see libvirtd's log on both hosts, then try again",
    )

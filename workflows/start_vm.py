"""Start one VM: place it, define it, start it, and read it back as running.

Phases      placing (may wait for room) → defining → starting → done.
Invariants  the run is written, with its memory reserved, before any host hears of it; the claim
            just before `create()` fails once the run has moved on.
Pause       honoured until its place is taken: a start that waits for room can stand still.
Races       a recovery that takes this VM closes the run; the next step here is then refused as
            superseded and the operation ends `cancelled`.
Giving up   a start that fails or is cancelled is undone: destroy, undefine, read back, close the
            run. Where the host does not answer, the run stays and the host's recovery settles it;
            a run that another owner took over is left to that owner.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.guests import GuestOrder, Guests, PlaceOrder, WithdrawOrder
from domain.operations import Outcome
from domain.orders import Placement, RunRef, StartVmOrder
from workflows import options
from workflows.operation import (
    go_on,
    problem_of,
    run_operation,
    show_running,
    show_waiting,
    to_its_end,
    wait_up_to,
)
from workflows.pausing import Pausing


@workflow.defn
class StartVm:
    """The durable operation `vm.start`."""

    @workflow.init
    def __init__(self, order: StartVmOrder) -> None:
        self._order = order
        self._run_ref: RunRef | None = order.run
        self._looks_wanted = 0
        self._pausing = Pausing(order)

    @workflow.run
    async def run(self, order: StartVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._start, self._undo)

    @workflow.signal
    def look_again(self) -> None:
        """Capacity may have changed: do not wait for the next look."""
        self._looks_wanted += 1

    async def _start(self) -> str:
        if self._run_ref is None:
            placement = await self._place()
            if placement.already_running:
                return f"{self._order.vm_name} runs already"
            self._run_ref = placement.run
        assert self._run_ref is not None
        try:
            return await self._start_on(self._run_ref)
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await to_its_end(self._give_up())
            raise

    async def _place(self) -> Placement:
        order = self._order
        wanted = PlaceOrder(
            operation_id=order.operation_id,
            attempt=order.attempt,
            vm_id=order.vm_id,
            host_id=order.host_id,
            licence_id=order.licence_id,
            incident_id=order.context.incident_id,
            prefer_id=order.prefer_id,
            avoid=order.avoid,
        )
        waited = False
        while True:
            await self._pausing.checkpoint()
            looks = self._looks_wanted
            placement = await workflow.execute_activity_method(
                Guests.place,
                wanted,
                **options.decide(f"place {order.vm_name}"),
            )
            if placement.no_room is None:
                if waited:
                    await show_running(order)
                return placement
            await show_waiting(order, "NO_ROOM", placement.no_room)
            waited = True
            await self._wait_for_room(looks)

    async def _wait_for_room(self, looks: int) -> None:
        # The next run would not know of a pause.
        if workflow.info().is_continue_as_new_suggested() and not self._pausing.wanted:
            workflow.continue_as_new(self._order)
        await wait_up_to(
            self._order.policy.capacity_retry_s,
            lambda: self._looks_wanted > looks or self._pausing.wanted,
            "look for room again",
        )

    async def _start_on(self, run: RunRef) -> str:
        policy, name = self._order.policy, self._order.vm_name
        define = GuestOrder(run=run, deadline_s=policy.define_deadline_s)
        start = GuestOrder(run=run, deadline_s=policy.start_deadline_s)
        where = f"{name} on {run.host_name}, generation {run.generation}"
        workflow.set_current_details(f"starting {where}")
        go_on()
        await workflow.execute_activity_method(
            Guests.define,
            define,
            **options.guest(policy, f"define {where}"),
        )
        go_on()
        return await workflow.execute_activity_method(
            Guests.start,
            start,
            **options.guest(policy, f"start {where}"),
        )

    async def _give_up(self) -> None:
        try:
            await self._undo()
        except ActivityError as error:
            workflow.logger.warning("start was not undone", extra={"code": problem_of(error).code})

    async def _undo(self) -> str:
        order = self._order
        return await workflow.execute_activity_method(
            Guests.withdraw,
            WithdrawOrder(
                operation_id=order.operation_id,
                attempt=order.attempt,
                vm_id=order.vm_id,
                deadline_s=order.policy.define_deadline_s,
            ),
            **options.give_up(order.policy, f"undo the start of {order.vm_name}"),
        )

"""Start one VM: place it, define it, start it, and read it back as running.

Phases      placing (may wait for room) → defining → starting → done.
Invariants  the run is written, with its memory reserved, before any host hears of it; the claim
            just before `create()` fails once the run has moved on.
Disarmed    one that belongs to a recovery waits while its cluster is frozen, its place kept.
Turns       one that the engine itself starts waits while as many start on its host as may at once
            (`domain.start_turns`), its place kept.
Pause       honoured until its place is taken: a start that waits for room can stand still.
Races       a recovery that takes this VM closes the run; the next step here is then refused as
            superseded and the operation ends `cancelled`.
Tries       an order with limits is tried on other hosts, and on all of them again: each time the
            failed start was undone and read back on its host, or never was claimed. A host that
            does not answer that is waited for; its recovery takes the run over once it is proven
            dead. What was accepted before there were limits has one try, as it had then.
Giving up   a start that fails or is cancelled is undone: destroy, undefine, read back, close the
            run. Where the host does not answer, the run stays and the host's recovery settles it;
            a run that another owner took over is left to that owner.
"""

from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.guests import NOT_OURS, GuestOrder, Guests, PlaceOrder, WithdrawOrder
from domain.disarming import DISARMED
from domain.next_looks import FROZEN_LOOK_MAX_S
from domain.operations import Outcome, Problem
from domain.orders import Placement, RunRef, StartVmOrder
from domain.start_tries import PLACED_ANEW, Tries
from domain.start_turns import STARTS_AT_LIMIT
from workflows import options
from workflows.operation import (
    failure_of,
    go_on,
    go_on_anew,
    go_on_to_wait,
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
class StartVm:
    """The durable operation `vm.start`."""

    @workflow.init
    def __init__(self, order: StartVmOrder) -> None:
        self._order = order
        self._run_ref: RunRef | None = order.run
        self._looks_wanted = 0
        self._tries = Tries.of(order)
        self._pausing = Pausing(order)
        self._frozen = 0  # how often it was looked whether recoveries are
        self._turns_asked = 0  # in vain, on the host where it has its place

    @workflow.run
    async def run(self, order: StartVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._start, self._undo)

    @workflow.signal
    def look_again(self) -> None:
        """Capacity may have changed: do not wait for the next look."""
        self._looks_wanted += 1

    async def _start(self) -> str:
        while True:
            looks = self._looks_wanted
            try:
                if self._run_ref is None:
                    placement = await self._place()
                    if placement.already_running:
                        return f"{self._order.vm_name} runs already"
                    self._run_ref = placement.run
                assert self._run_ref is not None
                return self._told(await self._start_on(self._run_ref))
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                if problem_of(error).code == DISARMED:
                    await self._until_armed(problem_of(error))
                    continue
                if problem_of(error).code == STARTS_AT_LIMIT:
                    await self._until_turn(problem_of(error), looks)
                    continue
                if self._run_ref is None:
                    raise
                await self._failed_on(self._run_ref, error)
            self._run_ref = None

    async def _until_armed(self, problem: Problem) -> None:
        """Wait while recoveries are frozen; its place is kept, and nothing is undone."""
        order, looks = self._order, self._looks_wanted
        go_on_to_wait()
        await show_waiting(order, problem.code, problem.detail)
        if workflow.info().is_continue_as_new_suggested():
            self._go_on_anew(self._run_ref)
        wait_s = min(order.policy.hold_retry_s * 2.0 ** min(self._frozen, 10), FROZEN_LOOK_MAX_S)
        self._frozen += 1
        awaited = "see whether recoveries are frozen"
        await wait_up_to(wait_s, lambda: self._looks_wanted > looks, awaited)
        await show_running(order)

    async def _until_turn(self, problem: Problem, looks: int) -> None:
        """Wait for a turn on its host, which wakes it; that it waits stands in its row already."""
        go_on_to_wait()
        workflow.set_current_details(f"waiting: {problem.detail}")
        if workflow.info().is_continue_as_new_suggested():
            self._go_on_anew(self._run_ref)
        policy, doublings = self._order.policy, min(self._turns_asked, 10)
        self._turns_asked += 1
        wait_s = min(policy.capacity_retry_s * 2.0**doublings, policy.hold_retry_max_s)
        await wait_up_to(wait_s, lambda: self._looks_wanted > looks, "see whether its turn is")

    async def _failed_on(self, run: RunRef, error: ActivityError) -> None:
        """Undo the start; returns once another host may try, raises when none may."""
        if self._turns_asked:  # it says still that it waits for its turn there
            await show_running(self._order)
            self._turns_asked = 0
        undone = await to_its_end(self._give_up())
        if self._order.limits is None:
            raise error
        problem = problem_of(error)
        if undone is None and self._order.limits.insist:
            undone = await self._until_undone(run, problem)
        overtaken = problem.code in ("SUPERSEDED", "GENERATION_STALE")
        if undone is None or undone in NOT_OURS or overtaken:
            raise error
        if problem.code in PLACED_ANEW:
            return
        self._tries = self._tries.after(run.host_id, run.host_name, problem.code)
        if self._tries.round_is_over or self._tries.spent:
            await self._next_round(problem)

    async def _until_undone(self, run: RunRef, problem: Problem) -> str:
        """Wait for the host: nothing else tells whether a copy is there, but its recovery."""
        order, policy = self._order, self._order.policy
        detail = (
            f"{order.vm_name} did not start on {run.host_name} ({problem.code}), which does not "
            "say whether anything is left: it is asked again until it answers or is proven dead"
        )
        wait_s = policy.hold_retry_max_s
        while True:
            go_on_to_wait()
            await show_waiting(order, "START_NOT_UNDONE", detail)
            await wait_up_to(wait_s, lambda: False, f"ask {run.host_name} again")
            wait_s = next_look_s(wait_s, policy)
            undone = await self._give_up()
            if undone is not None:
                await show_running(order)
                return undone

    async def _next_round(self, problem: Problem) -> None:
        """Wait until all hosts may try again; raises when there is no further round."""
        tries, order = self._tries, self._order
        said = f"{order.vm_name} failed to start on {tries.told()}"
        if tries.spent:
            raise failure_of(
                problem.model_copy(
                    update={"detail": f"{problem.detail}; {said}: no tries are left"}
                )
            )
        wait_s = tries.wait_s(order.policy)
        at = workflow.now() + options.seconds(wait_s)
        made = f"{len(tries.failed)} of {tries.most} tries were made"
        detail = f"{said}; {made}, the next is at {at:%Y-%m-%d %H:%M:%S} UTC"
        go_on_to_wait()
        await show_waiting(order, "START_FAILED", detail)
        await wait_up_to(wait_s, lambda: False, "try to start it again")
        await show_running(order)
        self._tries = tries.next_round()

    def _told(self, said: str) -> str:
        return f"{said}; it failed before on {self._tries.told()}" if self._tries.failed else said

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
            avoid=(*order.avoid, *self._tries.avoid),
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
            if self._tries.avoid:  # no other host has room: those that failed may try again
                await self._next_round(self._no_other(placement.no_room))
                wanted = wanted.model_copy(update={"avoid": order.avoid})
                continue
            go_on_to_wait()
            await show_waiting(order, "NO_ROOM", placement.no_room)
            waited = True
            await self._wait_for_room(looks)

    async def _wait_for_room(self, looks: int) -> None:
        # The next run would not know of a pause.
        if workflow.info().is_continue_as_new_suggested() and not self._pausing.wanted:
            # A place that it began with is given back by now, or its first step has found it.
            self._go_on_anew(None)
        await wait_up_to(
            self._order.policy.capacity_retry_s,
            lambda: self._looks_wanted > looks or self._pausing.wanted,
            "look for room again",
        )

    def _go_on_anew(self, run: RunRef | None) -> NoReturn:
        go_on_anew(self._order.model_copy(update={"run": run, **self._tries.kept()}))

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

    def _no_other(self, detail: str) -> Problem:
        last = self._tries.failed[-1]
        return Problem(
            code=last.code,
            detail=f"{self._order.vm_name} did not start on {last.host_name}, and {detail}",
            next_step="look at the steps of this operation, and at the host's log",
        )

    async def _give_up(self) -> str | None:
        """What undoing the start says; None where its host did not answer."""
        try:
            return await self._undo()
        except ActivityError as error:
            workflow.logger.warning("start was not undone", extra={"code": problem_of(error).code})
            return None

    async def _undo(self) -> str:
        order = self._order
        insists = order.limits is not None and order.limits.insist
        return await workflow.execute_activity_method(
            Guests.withdraw,
            WithdrawOrder(
                operation_id=order.operation_id,
                attempt=order.attempt,
                vm_id=order.vm_id,
                deadline_s=order.policy.define_deadline_s,
            ),
            # Who insists comes back to it: a host that does not answer is shown as what is awaited.
            **(options.guest if insists else options.give_up)(
                order.policy, f"undo the start of {order.vm_name}"
            ),
        )

"""Shut one host down by plan, or reboot it: empty it, switch it off, for a reboot bring it back.

Phases      emptying, look by look → off, read back → done; for a reboot: on, read back → a new boot
            answers → reconciling → admitted. VMs that were shut down are started again beside that:
            elsewhere at once (failover), or there once it is back (freeze).
Invariants  power is switched only while the host is in maintenance and no run names it, in the very
            statement that claims it. From then on nobody judges the host's silence: a planned stop
            is no failure, and needs no proof of death.
Remembered  each VM that is shut down stands in a row of its own until its start has ended. When
            this ends before that, the host's activation or the relay starts it.
Waits       while a VM cannot be moved or stopped. A start without room keeps neither the power nor
            this waiting: it goes on by itself, and the summary names it.
Pause       orders no further move or stop; what is under way goes on.
Cancel      while emptying: moves are given up, stops that were asked for end, the host serves on
            and gets its VMs back. Later: the host is left in maintenance, its power as it was read.
Races       the host fails or reboots while VMs are on it: its recovery takes it over, and this ends
            as superseded.
Giving up   power that does not do as it was told, or a machine that does not come back within its
            limit, needs a person: the host stays in maintenance.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.host_power import HostPowers, PowerStep, Reboots
from activities.hosts import HostStep
from activities.maintaining import DrainStep
from activities.planned import Planned, PlannedStep, Returned
from domain.operations import Outcome, Problem
from domain.orders import ShutDownHostOrder
from domain.planned import PlannedVms
from workflows import options
from workflows.admitting import leave_out, settle_and_admit
from workflows.draining import Draining
from workflows.operation import (
    NEEDS_A_PERSON,
    failure_of,
    go_on,
    problem_of,
    run_operation,
    show_running,
    show_waiting,
    to_its_end,
)


@workflow.defn
class ShutDownHost:
    """The durable operations `host.shutdown` and `host.reboot`."""

    @workflow.init
    def __init__(self, order: ShutDownHostOrder) -> None:
        self._order = order
        self._draining = Draining(order, _drain_step(order))
        self._reconciling = False

    @workflow.run
    async def run(self, order: ShutDownHostOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._shut_down, self._left)

    @workflow.signal
    def look_again(self) -> None:
        """A move, a stop or a start has ended, or there is room: do not wait for the next look."""
        self._draining.look_again()

    async def _shut_down(self) -> str:
        order = self._order
        # Frozen VMs have nowhere to go yet.
        beside = self._bring_back if order.vms is PlannedVms.FAILOVER else None
        drained = await self._draining.until_empty(beside)
        gone = "moved" if order.vms is PlannedVms.MIGRATE else "shut down"
        said = f"{drained.moved} VMs were {gone}; "
        said += await self._reboot() if order.reboot else await self._off()
        if order.vms is not PlannedVms.MIGRATE:
            said += self._told(await self._until_back())
        return said

    async def _off(self) -> str:
        order = self._order
        go_on()
        try:
            said = await to_its_end(
                workflow.execute_activity_method(
                    HostPowers.power_off_empty,
                    self._power_step(),
                    **options.switch(order.policy, f"switch {order.host.name} off"),
                )
            )
        except ActivityError as error:
            raise failure_of(_for_a_person(problem_of(error), "HOST_NOT_OFF")) from error
        return f"{order.host.name} is {said}"

    async def _reboot(self) -> str:
        off = await self._off()
        go_on()
        try:
            await self._on()
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            raise failure_of(_for_a_person(problem_of(error), "HOST_NOT_BACK")) from error
        return f"{off}; {await self._admit()}"

    async def _on(self) -> None:
        policy, name = self._order.policy, self._order.host.name
        await to_its_end(
            workflow.execute_activity_method(
                HostPowers.power_on_again,
                self._power_step(),
                **options.switch(policy, f"switch {name} on"),
            )
        )
        go_on()
        await workflow.execute_activity_method(
            Reboots.await_reboot,
            self._power_step(),
            **options.host(policy, f"wait until {name} answers in a new boot"),
        )

    async def _admit(self) -> str:
        order = self._order
        go_on()
        self._reconciling = True
        await to_its_end(
            workflow.execute_activity_method(
                Reboots.begin_return,
                self._power_step(),
                **options.decide(f"let {order.host.name} be settled"),
            )
        )
        step = HostStep(operation_id=order.operation_id, host=order.host, policy=order.policy)
        try:
            go_on()
            admitted = await settle_and_admit(step)
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await to_its_end(leave_out(order.host, problem_of(error).detail))
            raise
        self._reconciling = False
        return admitted

    async def _until_back(self) -> Returned:
        """Follow the VMs that come back until each start has ended, or waits for something."""
        waited = False
        while True:
            go_on()
            looks = self._draining.looks_wanted
            found = await self._bring_back()
            if not found.under_way:
                if waited:
                    await show_running(self._order)
                return found
            if not waited:
                detail = f"{found.under_way} VMs are being started again"
                await show_waiting(self._order, "VMS_START", detail)
            waited = True
            await self._draining.wait(looks)

    async def _bring_back(self) -> Returned:
        found: Returned = await to_its_end(
            workflow.execute_local_activity_method(
                Planned.bring_back, self._planned_step(), **options.RECORD
            )
        )
        return found

    def _told(self, found: Returned) -> str:
        """How the VMs that were shut down stand; raises when some failed to start."""
        said = f"; {found.running} run again" if found.running else ""
        if found.waiting:
            said += f"; not yet, and started by themselves: {'; '.join(found.waiting)}"
        if found.held:
            frozen = self._order.vms is PlannedVms.FREEZE and not self._order.reboot
            when = f"once {self._order.host.name} is active" if frozen else "by themselves"
            said += f"; started {when}: {', '.join(found.held)}"
        if found.failed:
            raise failure_of(
                Problem(
                    code="RESTARTS_FAILED",
                    detail=f"{self._order.host.name} did as it was told{said}; not started: "
                    + "; ".join(found.failed),
                    next_step="look at the child operations that failed, then start those VMs",
                )
            )
        return said

    async def _left(self) -> str:
        if self._reconciling:
            await leave_out(self._order.host, "its reboot was cancelled while it was settled")
        return await workflow.execute_local_activity_method(
            Planned.give_up, self._planned_step(), **options.RECORD
        )

    def _planned_step(self) -> PlannedStep:
        return PlannedStep(operation_id=self._order.operation_id, host=self._order.host)

    def _power_step(self) -> PowerStep:
        order = self._order
        return PowerStep(
            operation_id=order.operation_id,
            attempt=order.attempt,
            host=order.host,
            policy=order.policy,
        )


def _drain_step(order: ShutDownHostOrder) -> DrainStep:
    moves = order.vms is PlannedVms.MIGRATE
    policy = order.policy
    return DrainStep(
        operation_id=order.operation_id,
        host=order.host,
        at_once=policy.migrations_per_host if moves else policy.starts_per_host,
        retry_s=policy.hold_retry_max_s,
        vms=order.vms,
    )


def _for_a_person(problem: Problem, code: str) -> Problem:
    """What went wrong with the power of a host, as something that a person has to look at."""
    if problem.code in (*NEEDS_A_PERSON, "HOST_MOVED_ON"):
        return problem
    return problem.model_copy(update={"code": code, "detail": f"{problem.code}: {problem.detail}"})

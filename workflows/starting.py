"""How many VMs a recovery starts at once on one host, and when one of them is ready.

A host that boots twenty guests at once slows those that run there already, and each of the twenty.
So starts take turns, in the order of the plan. Whoever holds a turn for longer than a start may
take (its host hangs, or it waits for room by now) keeps nobody else waiting.
"""

from collections import deque
from datetime import datetime
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.dependencies import BackFound, BackOrder, Dependencies, WaitingStart
from activities.readiness import (
    Readiness,
    ReadyFound,
    ReadyLook,
    ReadyLooked,
    ReadyOrder,
    ReadyWait,
)
from domain.next_looks import AWAITED_LOOK_MAX_S
from domain.orders import RecoverHostOrder, Restart, RestartPlan
from domain.readiness import ReadyRule
from workflows import options
from workflows.operation import problem_of, wait_up_to

STARTS_PER_HOST = "starts-per-host"
"""Patch: before it, all starts of a recovery began at once."""

READY_BY_LOOKS = "ready-by-looks"
"""Patch: before it, each VM that others wait for held a step for as long as that took: as many as
there are steps at a time kept everything else waiting, urgent work too."""

ANYWHERE = UUID(int=0)
"""The turns of those that have no place yet and are released together: they look for one in order.
"""

LOOK_FIRST_S = 1.0
"""Between the first looks for VMs of others; then a tenth of how long they have been waited for.
Higher: a start comes later than it could. Lower: a short wait takes many events."""


class Turns:
    """The turns of one recovery; deterministic, first come, first served."""

    def __init__(self, per_host: int, patience_s: float) -> None:
        self._per_host = per_host
        self._patience_s = patience_s
        self._taken: dict[UUID, int] = {}
        self._waiting: dict[UUID, deque[UUID]] = {}

    async def take(self, host_id: UUID, vm_id: UUID, vm_name: str) -> None:
        """Wait for a turn on a host; after the patience it begins all the same."""
        if self._taken.get(host_id, 0) >= self._per_host and workflow.patched(STARTS_PER_HOST):
            await self._wait(host_id, vm_id, vm_name)
        self._taken[host_id] = self._taken.get(host_id, 0) + 1

    def give_back(self, host_id: UUID) -> None:
        """The start has ended."""
        self._taken[host_id] -= 1

    async def _wait(self, host_id: UUID, vm_id: UUID, vm_name: str) -> None:
        queue = self._waiting.setdefault(host_id, deque())
        queue.append(vm_id)
        try:
            await workflow.wait_condition(
                lambda: queue[0] == vm_id and self._taken[host_id] < self._per_host,
                timeout=options.seconds(self._patience_s),
                timeout_summary=f"wait for the turn of {vm_name}",
            )
        except TimeoutError:
            return
        finally:
            queue.remove(vm_id)


class Awaited:
    """Starts that wait for VMs which something else brings back; one look for all at a time."""

    def __init__(self, order: RecoverHostOrder, plan: RestartPlan) -> None:
        self._order = order
        self._waiting = {
            one.operation_id: WaitingStart(
                start_id=one.operation_id, vm_name=one.vm_name, awaits=one.awaits
            )
            for one in plan.restarts
            if one.awaits
        }

    async def released(self, item: Restart) -> None:
        """Wait until this start need not wait any more."""
        await workflow.wait_condition(lambda: item.operation_id not in self._waiting)

    async def watch(self) -> None:
        """Look again and again, ever less often; whatever comes of it, each start is released."""
        began = workflow.now()
        while self._waiting:
            waited_s = (workflow.now() - began).total_seconds()
            try:
                await self._look(waited_s)
            except ActivityError as error:
                code = problem_of(error).code
                workflow.logger.warning("not waited for", extra={"code": code})
                self._waiting.clear()
            if self._waiting:
                wait_s = min(max(LOOK_FIRST_S, waited_s / 10), AWAITED_LOOK_MAX_S)
                await workflow.sleep(options.seconds(wait_s), summary="look for VMs of others")

    async def _look(self, waited_s: float) -> None:
        wanted = BackOrder(
            operation_id=self._order.operation_id,
            starts=tuple(self._waiting.values()),
            waited_s=waited_s,
            deadline_s=self._order.policy.connect_deadline_s,
        )
        summary = f"look for VMs that {len(self._waiting)} of its VMs depend on"
        found: BackFound = await workflow.execute_activity_method(
            Dependencies.look_back, wanted, **options.decide(summary)
        )
        for one in found.released:
            del self._waiting[one.start_id]
            workflow.logger.info("released", extra={"why": one.why})


class Readied:
    """VMs of one recovery that were started and others wait for; one look for all at a time."""

    def __init__(self, order: RecoverHostOrder) -> None:
        self._order = order
        self._waiting: dict[UUID, tuple[ReadyOrder, datetime]] = {}
        self._looking = False
        self._asked: frozenset[UUID] = frozenset()
        self._next_at = workflow.now()

    async def until(self, item: Restart, rule: ReadyRule) -> None:
        """Wait until a VM that was started is ready; whatever comes of it, its dependants start."""
        wanted = ReadyOrder(
            operation_id=self._order.operation_id,
            incident_id=self._order.incident_id,
            vm_id=item.vm_id,
            vm_name=item.vm_name,
            rule=rule,
            deadline_s=self._order.policy.connect_deadline_s,
        )
        if not workflow.patched(READY_BY_LOOKS):
            await _in_one_step(wanted)
            return
        self._waiting[item.vm_id] = (wanted, workflow.now())
        while item.vm_id in self._waiting:
            # Whoever waits looks for all; when it is answered, another one goes on.
            if self._looking:
                await workflow.wait_condition(
                    lambda: not self._looking or item.vm_id not in self._waiting
                )
            else:
                self._looking = True
                try:
                    await self._wait_and_look()
                finally:
                    self._looking = False

    async def _wait_and_look(self) -> None:
        # It waits before it looks, so that whoever's VM is settled by a look goes on at once.
        left_s = (self._next_at - workflow.now()).total_seconds()
        if left_s > 0 and not self._is_new():
            await wait_up_to(left_s, self._is_new, "look whether VMs are ready")
        self._asked = frozenset(self._waiting)
        try:
            looked = await self._look()
        except ActivityError as error:
            code = problem_of(error).code
            workflow.logger.warning("not waited for", extra={"code": code})
            for vm_id in self._asked:
                self._waiting.pop(vm_id, None)
            return
        for one in looked.settled:
            self._waiting.pop(one.vm_id, None)
            if not one.found.ready:
                workflow.logger.warning("not ready in time", extra={"why": one.found.why})
        self._next_at = workflow.now() + options.seconds(looked.next_s or 0.0)

    def _is_new(self) -> bool:
        """Whether a VM is waited for that no look has asked for yet."""
        return not self._waiting.keys() <= self._asked

    async def _look(self) -> ReadyLooked:
        now = workflow.now()
        waits = tuple(
            ReadyWait(order=order, waited_s=(now - since).total_seconds())
            for order, since in self._waiting.values()
        )
        names = " and ".join(wait.order.vm_name for wait in waits[:2])
        more = f" and {len(waits) - 2} more" if len(waits) > 2 else ""
        summary = f"look whether {names}{more} {'are' if len(waits) > 1 else 'is'} ready"
        return await workflow.execute_activity_method(
            Readiness.look_ready, ReadyLook(waits=waits), **options.decide(summary)
        )


async def _in_one_step(wanted: ReadyOrder) -> None:
    limit = options.ready(wanted.rule.within_s, f"wait until {wanted.vm_name} is ready")
    try:
        found: ReadyFound = await workflow.execute_activity_method(
            Readiness.until_ready, wanted, **limit
        )
    except ActivityError as error:
        workflow.logger.warning("not waited for", extra={"code": problem_of(error).code})
        return
    if not found.ready:
        workflow.logger.warning("not ready in time", extra={"why": found.why})

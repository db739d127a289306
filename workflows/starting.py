"""How many VMs a recovery starts at once on one host, and when one of them is ready.

A host that boots twenty guests at once slows those that run there already, and each of the twenty.
So starts take turns, in the order of the plan. Whoever holds a turn for longer than a start may
take (its host hangs, or it waits for room by now) keeps nobody else waiting.
"""

from collections import deque
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.readiness import BackOrder, Readiness, ReadyFound, ReadyOrder, back_within_s
from domain.orders import AwaitedVm, RecoverHostOrder, Restart
from domain.readiness import ReadyRule
from workflows import options
from workflows.operation import problem_of

STARTS_PER_HOST = "starts-per-host"
"""Patch: before it, all starts of a recovery began at once."""


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


async def until_back(order: RecoverHostOrder, item: Restart, other: AwaitedVm) -> None:
    """Wait for a VM of another recovery; whatever comes of it, those that depend on it start."""
    wanted = BackOrder(
        operation_id=order.operation_id,
        start_id=item.operation_id,
        other=other,
        deadline_s=order.policy.connect_deadline_s,
    )
    summary = f"wait until {other.vm_name} is back, for {item.vm_name}"
    try:
        found: ReadyFound = await workflow.execute_activity_method(
            Readiness.until_back, wanted, **options.ready(back_within_s(other), summary)
        )
    except ActivityError as error:
        workflow.logger.warning("not waited for", extra={"code": problem_of(error).code})
        return
    if not found.ready:
        workflow.logger.warning("not back in time", extra={"why": found.why})


async def until_ready(order: RecoverHostOrder, item: Restart, rule: ReadyRule) -> None:
    """Wait until a VM that was started is ready; whatever comes of it, its dependants start."""
    wanted = ReadyOrder(
        operation_id=order.operation_id,
        incident_id=order.incident_id,
        vm_id=item.vm_id,
        vm_name=item.vm_name,
        rule=rule,
        deadline_s=order.policy.connect_deadline_s,
    )
    summary = f"wait until {item.vm_name} is ready"
    try:
        found: ReadyFound = await workflow.execute_activity_method(
            Readiness.until_ready, wanted, **options.ready(rule.within_s, summary)
        )
    except ActivityError as error:
        workflow.logger.warning("not waited for", extra={"code": problem_of(error).code})
        return
    if not found.ready:
        workflow.logger.warning("not ready in time", extra={"why": found.why})

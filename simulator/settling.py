"""Liveness: once everything is healed, what was promised has to come true in bounded time.

What the engine promises by itself: each operation ends, or waits for a reason that it gives; each
protected VM that is wanted and was lost with its host runs again, or something says why not: a
restart that failed with its problem, a host that is out of service, an incident whose recovery was
cancelled. What it asks of a person there, a person then does here: activates hosts that are out of
service, starts VMs whose start has failed, and retries a start that was ended half way. After that
every protected VM that is wanted runs.

Not promised, and not asked for: VMs of which somebody started a copy by hand.
"""

import asyncio
from collections.abc import Iterator
from uuid import UUID

from domain.operations import OperationState
from domain.readings import DomainState
from engine.actions.clusters import ArmCluster
from engine.actions.hosts import ActivateHost
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.vms import StartVm
from simulator.faults.troubles import Troubles
from simulator.invariants import QUIET
from simulator.invariants.facts import OPEN, Facts, Row, facts_of
from simulator.invariants.quiet import (
    every_copy_has_its_run,
    every_running_run_has_its_copy,
    nothing_stays_hung,
    one_copy_at_most,
)
from simulator.invariants.watch import Watch

ALONE_S = 480.0
"""How long the engine has by itself: longer than the window of the fence budget, and a poll of
every profile. Higher: what hangs for ever takes longer to show. Lower: a fence that waits for the
window to pass is taken for stuck."""

CALM_S = 45.0
"""After so long without any change, what is down with its reason told stays down by itself: longer
than the longest wait between two looks of a recovery."""

PERSON_S = 600.0
"""How long until all is well once a person does what is asked."""

LOOK_S = 2.0
BY_A_PERSON = ("NO_ROOM", "VMS_CANNOT_MOVE")
"""Reasons to wait that only a person can end, by bringing hosts back or giving a drain up."""

MADE_ROOM = "made room for"

OUT_OF_SERVICE = ("down", "non_operational", "non_responsive", "error", "maintenance")


GIVEN_FREE = ("host.recover", "host.fence")
"""What may be under way on a host that is activated: a recovery lets go of its host once its VMs
are claimed, and refuses an activation before that."""


class Settling:
    """The end of one run."""

    def __init__(self, troubles: Troubles, watch: Watch) -> None:
        self._troubles = troubles
        self._stage = troubles.stage
        self._watch = watch

    async def run(self) -> None:
        """Wait for the engine, then act as it asks, then judge."""
        await self._wait_alone()
        for sentence in self._unexplained():
            self._broken("explained", sentence)
        await self._wait_for_a_person()
        for sentence in self._down():
            self._broken("liveness", sentence)
        self._judge()

    async def _wait_alone(self) -> None:
        clock = self._stage.loop.time
        end_s, since_s, was = clock() + ALONE_S, clock(), self._shape()
        while clock() < end_s:
            await asyncio.sleep(LOOK_S)
            now = self._shape()
            if now != was:
                since_s, was = clock(), now
            if self._well() or (clock() >= since_s + CALM_S and self._rests()):
                return

    async def _wait_for_a_person(self) -> None:
        end_s = self._stage.loop.time() + PERSON_S
        while self._stage.loop.time() < end_s and not self._well():
            await self._act()
            await asyncio.sleep(LOOK_S)

    def _shape(self) -> tuple[tuple[object, ...], ...]:
        """What changes while something goes on by itself."""
        facts = self._facts("operation", "vm_run", "host")
        told = (
            *((op["id"], op["state"], op["reason_code"]) for op in facts.rows["operation"]),
            *((run["id"], run["state"]) for run in facts.rows["vm_run"]),
            *((host["id"], host["state"]) for host in facts.rows["host"]),
        )
        return tuple(told)

    def _rests(self) -> bool:
        """Whether nothing goes on any more, and what is not well says why."""
        facts = self._facts("operation")
        going_on = (op for op in _open(facts) if op["reason_code"] not in BY_A_PERSON)
        return next(going_on, None) is None and not any(self._unexplained())

    def _well(self) -> bool:
        facts = self._facts("operation", "vm", "vm_run", "host")
        settled = all(op["state"] not in OPEN for op in facts.rows["operation"])
        hung = any(nothing_stays_hung(self._stage.centre, facts))
        return settled and not hung and not any(self._down_in(facts))

    def _down(self) -> Iterator[str]:
        facts = self._facts("operation", "vm", "vm_run", "host", "incident")
        for vm in self._down_in(facts):
            last = _last_start(facts, vm["id"])
            said = "none" if last is None else f"{last['state']} {last['problem'] or ''}"
            yield f"{vm['name']} does not run again; its last start: {said:.300}"

    def _down_in(self, facts: Facts) -> Iterator[Row]:
        running = {run["vm_id"] for run in facts.active if run["state"] == "running"}
        for vm in facts.rows["vm"]:
            wanted = vm["wanted"] and vm["protected"] and vm["removed_at"] is None
            if not wanted or vm["id"] in self._troubles.touched:
                continue
            if vm["id"] not in running or not self._goes_on(vm["id"]):
                yield vm

    def _goes_on(self, vm_id: UUID) -> bool:
        """Whether a copy of it runs, and is not paused."""
        centre = self._stage.centre
        states = [centre.hosts[host].domains[vm_id].state for host in centre.copies(vm_id)]
        return bool(states) and DomainState.PAUSED not in states

    def _unexplained(self) -> Iterator[str]:
        facts = self._facts("operation", "vm", "vm_run", "host", "incident", "planned_stop")
        for vm in self._down_in(facts):
            if not _explained(facts, vm["id"]):
                yield f"{vm['name']} is down, and nothing says why"
        for op in _open(facts):
            if not (op["state"] == "waiting" and op["reason_code"] and op["waiting_for"]):
                yield f"{op['kind']} {op['target_name']} is still {op['state']}"

    async def _act(self) -> None:
        facts = self._facts("operation", "vm", "vm_run", "host", "incident", "cluster")
        for cluster in facts.rows["cluster"]:
            if not cluster["armed"]:
                await self._troubles.answer_to(ArmCluster(cluster_id=cluster["id"], armed=True))
        busy = {
            op["target_id"]
            for op in facts.rows["operation"]
            if op["state"] in OPEN and op["kind"] not in GIVEN_FREE
        }
        for host in facts.rows["host"]:
            if host["state"] in OUT_OF_SERVICE and host["id"] not in busy:
                await self._troubles.answer_to(ActivateHost(host_id=host["id"]))
        for op in facts.rows["operation"]:
            if op["state"] in OPEN and op["reason_code"] == "VMS_CANNOT_MOVE":
                await self._troubles.answer_to(CancelOperation(operation_id=op["id"]))
        await self._start(facts, busy)

    async def _start(self, facts: Facts, busy: set[UUID]) -> None:
        placed = {run["vm_id"] for run in facts.active}
        for vm in self._down_in(facts):
            if vm["id"] in busy:
                continue
            last = _last_start(facts, vm["id"])
            if vm["id"] not in placed:
                await self._troubles.answer_to(StartVm(vm_id=vm["id"]))
            elif last is not None and last["state"] == OperationState.NEEDS_ATTENTION:
                await self._troubles.answer_to(RetryOperation(operation_id=last["id"]))

    def _judge(self) -> None:
        self._watch.finish()
        facts = facts_of(self._stage.rows)
        touched = tuple(vm["name"] for vm in facts.rows["vm"] if vm["id"] in self._troubles.touched)
        for check in QUIET:
            if check is one_copy_at_most:
                continue  # counted where it happened, with what lies outside of the promise
            for sentence in check(self._stage.centre, facts):
                by_hand = check in (every_copy_has_its_run, every_running_run_has_its_copy)
                if not (by_hand and sentence.startswith(touched)):
                    self._broken(check.__name__, sentence)

    def _broken(self, check: str, sentence: str) -> None:
        outside = self._stage.centre.outside
        self._watch.broken(check, sentence, outside[0] if outside else None)

    def _facts(self, *tables: str) -> Facts:
        return facts_of(self._stage.rows, tables)


def _open(facts: Facts) -> list[Row]:
    """Open operations; one whose parts are under way waits for them, and they say why."""
    found = [op for op in facts.rows["operation"] if op["state"] in OPEN]
    parents = {op["parent_id"] for op in found}
    return [op for op in found if op["id"] not in parents]


def _last_start(facts: Facts, vm_id: UUID) -> Row | None:
    starts = [
        op
        for op in facts.rows["operation"]
        if op["kind"] in ("vm.start", "vm.stop", "vm.recover") and op["target_id"] == vm_id
    ]
    # In the order of their writing: times and ids are those of machines whose clocks may be wrong.
    return starts[-1] if starts else None


def _explained(facts: Facts, vm_id: UUID) -> bool:
    """Whether something tells a person why this VM is down."""
    last = _last_start(facts, vm_id)
    if last is not None and (last["problem"] or last["state"] in (*OPEN, "cancelled")):
        return True
    if last is not None and last["kind"] == "vm.stop" and last["reason"].startswith(MADE_ROOM):
        return True  # its run says for whom; its start follows once its cluster is armed
    hosts = facts.by_id("host")
    if _sleeps(facts, vm_id):
        return True
    for run in facts.active:
        if run["vm_id"] == vm_id and run["state"] == "migrating":
            return True  # its migration is open, and says what it waits for
        if run["vm_id"] == vm_id:
            host = hosts[run["host_id"]]
            return host["state"] in OUT_OF_SERVICE and bool(host["state_reason"])
    return False


def _sleeps(facts: Facts, vm_id: UUID) -> bool:
    """Whether it was shut down with a host that has not been brought back: `vm show` says so."""
    hosts = facts.by_id("host")
    return any(
        row["vm_id"] == vm_id and row["frozen"] and hosts[row["host_id"]]["state"] in OUT_OF_SERVICE
        for row in facts.rows["planned_stop"]
    )

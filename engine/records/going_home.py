"""Moves VMs home once their homes have served for a while: ordinary migrations, ordered once.

Whether one goes is `domain.failback`'s decision; what allows it stands in the statement that claims
it, in the transaction that orders its `vm.migrate`. A move that finds no room after all is given
up, so that it keeps nobody from working on the VM; so is one that has not begun when its cluster is
disarmed or an incident opens.
"""

from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import ActionContext, PriorityClass
from domain.errors import Refused
from domain.failback import GO, call_off, try_again_after_s
from domain.operations import OperationState
from engine.actions.migrate_vm import MigrateVm
from engine.backend import Backend, Options
from engine.cancelling import cancel_operation, of_operation
from engine.clock import Clock, utc_now
from engine.failback import facts_of, may_go, standing
from engine.refs import policy_of
from engine.rows import context_of
from store import failbacks, inventory, operations
from store.database import Database
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

PRINCIPAL = "engine:failback"
ORDERED_AT_ONCE = 50
"""VMs that one look moves home at most. Higher: a longer round. Lower: the last one goes later."""


class GoingHome:
    """The duty; every look is repeatable, and safe beside others."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock
        # Those that did not go after all, until each of the others has had its turn.
        self._not_gone: frozenset[UUID] = frozenset()

    async def go_home(self) -> int:
        """Look at the moves under way, then order those that are due; how many."""
        if await self._database.read(failbacks.ages_to_note):
            await self._database.write(failbacks.note_ages)
        for row in await self._database.read(failbacks.under_way):
            await self._database.write(partial(self._look_at, row))
        ready = await self._database.read(lambda c: may_go(c, self._not_gone))
        tried, not_gone = ready[:ORDERED_AT_ONCE], frozenset[UUID]()
        for vm_id in tried:
            try:
                gone = await self._database.write(partial(self._order, vm_id))
            except Refused as error:  # the others are to go all the same
                log.warning("not moved home", vm_id=str(vm_id), code=error.code, why=error.detail)
                gone = False
            if not gone:
                not_gone |= {vm_id}
        all_had_theirs = self._not_gone.issuperset(tried)
        self._not_gone = not_gone | (frozenset() if all_had_theirs else self._not_gone)
        return len(tried) - len(not_gone)

    async def _order(self, vm_id: UUID, connection: AsyncConnection) -> bool:
        vm = await inventory.get(connection, "vm", vm_id)
        if vm is None or (await standing(connection, vm)).code != GO:
            return False
        last = await failbacks.of_vm(connection, vm_id)
        row: Row = {"id": new_id(), "vm_id": vm_id, "open": 1, "claimed_at": self._clock()}
        row["failures"] = last["failures"] if last else 0
        cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
        assert cluster is not None
        if not await failbacks.claim(connection, row, policy_of(cluster).migrations_per_host):
            return False
        receipt = await self._backend.run_action(
            MigrateVm(vm_id=vm_id, host_id=vm["home_id"]),
            ActionContext(
                principal=PRINCIPAL, correlation_id=f"failback:{row['id'].hex}", reason="failback"
            ),
            options=Options(priority=PriorityClass.BALANCE),
        )
        await failbacks.note_operation(connection, row["id"], receipt.operation_id)
        await failbacks.forget_older(connection, vm_id, row["id"])
        return True

    async def _look_at(self, row: Row, connection: AsyncConnection) -> None:
        move = await operations.get(connection, row["operation_id"])
        if move is None:  # it is in the archive: whatever became of it is long over
            await failbacks.forget(connection, row["vm_id"], under_way=True)
        elif move["state"] not in operations.OPEN:
            await self._ended(connection, row, move)
        elif move["state"] == OperationState.WAITING and move["reason_code"] == "NO_ROOM":
            await self._give_up(connection, row, move, ("NO_ROOM", move["waiting_for"]))
        elif row["code"] is None:
            vm = await inventory.get(connection, "vm", row["vm_id"])
            against = call_off(await facts_of(connection, vm)) if vm else None
            if against is not None:
                await self._give_up(connection, row, move, (against.code, against.detail))

    async def _give_up(
        self, connection: AsyncConnection, row: Row, move: Row, why: tuple[str, str]
    ) -> None:
        if await failbacks.give_up(connection, row["id"], *why):
            tx = of_operation(self._backend.transaction(connection, context_of(move)), move)
            await cancel_operation(tx, move)
            await self._backend.write_out(tx)

    async def _ended(self, connection: AsyncConnection, row: Row, move: Row) -> None:
        """What follows: nothing, another try later, or rest where a person has cancelled it."""
        cancelled = move["state"] == OperationState.CANCELLED and row["code"] is None
        if move["state"] == OperationState.SUCCEEDED or cancelled:
            await failbacks.forget(connection, row["vm_id"], under_way=True)
            if cancelled and move["reason_code"] != "superseded":
                await failbacks.rest_away(connection, row["vm_id"])
            return
        problem = move["problem"] or {}
        code = row["code"] or problem.get("code") or move["state"]
        why = row["why"] or problem.get("detail") or move["summary"] or move["state"]
        failures = row["failures"] + 1
        wait_s = try_again_after_s(failures)
        if await failbacks.fail(connection, row["id"], failures, wait_s, (code, why)):
            log.warning("failback failed", vm_id=str(row["vm_id"]), code=code, again_in_s=wait_s)

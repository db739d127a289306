"""Steps that move a running guest to another host: reserve, move, settle.

Moving only asks libvirt, which carries on by itself when whoever asked is gone (peer to peer). What
came of it is never taken from the answer: `settle` reads both hosts, and only what it read, or a
certificate proves, decides whose the VM is. So each step may be repeated, also by another worker
while the first one still runs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from activities.waiting import until
from domain.base import Frozen
from domain.errors import Conflict, EngineError, NoAnswer, OutcomeUnknown, Unavailable
from domain.migration import MigrationFacts, Settling, Side, Verdict, settle, side_of, too_slow
from domain.orders import MigrationRef
from domain.profiles import Policy
from domain.readings import Knock, Migration

LOOKS_MOST = 6
"""Readings of one `settle`. What it ends on a host is read again; higher only helps a host that
keeps changing its mind."""

SWITCH_OVER_S = 10.0
"""How long a job that was given up may take to end. Higher: a cancelled migration that libvirt does
not let go of holds its step longer. Lower: the next look has to find it ended."""


class ReserveOrder(Frozen):
    """Find a host for a running VM and hold a place there."""

    operation_id: UUID
    attempt: int
    vm_id: UUID
    host_id: UUID | None
    per_host: int = 2  # VMs that may leave or come to one host at the same time


class Reservation(Frozen):
    """The migration that may begin, or why it has to wait; neither: it is not needed."""

    migration: MigrationRef | None = None
    no_room: str | None = None
    summary: str = ""


class MoveOrder(Frozen):
    """One step of one migration."""

    migration: MigrationRef
    policy: Policy
    abort: bool = False  # what libvirt still does of it is to be given up


class Settled(Frozen):
    """Who owns the VM now, or what has to change before that can be told."""

    move: Settling
    code: str = ""
    detail: str = ""
    summary: str = ""


class Deaths(Frozen):
    """Which of a migration's hosts are dead by a valid certificate."""

    source: UUID | None = None
    target: UUID | None = None


class MigrationRecords(Protocol):
    """The rows of a migration. Every method is one transaction and may be repeated."""

    async def reserve(self, order: ReserveOrder) -> Reservation:
        """Choose a target and let the VM's run name both hosts; the same again when repeated."""
        ...

    async def claim(self, migration: MigrationRef) -> None:
        """The last word before libvirt is told; Superseded when it is not to be told any more."""
        ...

    async def note_progress(self, migration: MigrationRef, seen: Migration) -> None:
        """Show on the operation how far libvirt is."""
        ...

    async def deaths(self, migration: MigrationRef) -> Deaths:
        """The certificates of its hosts."""
        ...

    async def conclude(
        self, migration: MigrationRef, move: Settling, deaths: Deaths, generation: int
    ) -> Settled:
        """Write down who owns the VM; of one that neither host runs, order the start if due."""
        ...


class Migrating:
    """Reserve, move, settle."""

    def __init__(self, hypervisor: Hypervisor, records: MigrationRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="migration.reserve")
    async def reserve(self, order: ReserveOrder) -> Reservation:
        """Hold a place; repeating it for the same operation gives the same migration."""
        return await self._records.reserve(order)

    @activity.defn(name="migration.move")
    async def move(self, order: MoveOrder) -> str:
        """Have libvirt move the guest, or follow what an earlier try has begun; repeatable.

        Its end says nothing: a guest that is not on its source any more was moved, or ended. So a
        host that falls silent is no error here either: what became of it, the readings tell.
        """
        try:
            return await self._move(order)
        except (NoAnswer, OutcomeUnknown) as error:
            if error.code == "COMMIT_OUTCOME_UNKNOWN":  # of our own database, not of a host
                raise
            return f"not known how it ended: {error.detail}"

    async def _move(self, order: MoveOrder) -> str:
        migration, policy = order.migration, order.policy
        run, target = migration.run, migration.target
        async with self._source(order) as session:
            if await session.migration(run.spec.vm_id) is not None:
                await self._follow(order, session)
                return f"followed what was under way to {target.name}"
            found = await session.lookup(run.spec.vm_id)
            if side_of(found) is not Side.RUNS:
                return f"not running on {run.host_name} any more"
            await self._make_way(order)
            await self._records.claim(migration)
            async with self._watched(order):
                await session.migrate(
                    run.spec.vm_id,
                    run.generation,
                    target.uri,
                    migration.generation,
                    policy.migrate_deadline_s,
                )
        return f"libvirt has moved it to {target.name}"

    @activity.defn(name="migration.settle")
    async def settle(self, order: MoveOrder) -> Settled:
        """Read both hosts, end what is left over on one of them, and write down the owner."""
        migration = order.migration
        for _ in range(LOOKS_MOST):
            # Asked before the readings: a host proven dead meanwhile is read as silent once more.
            deaths = await self._records.deaths(migration)
            facts, generation = await self._read(order, deaths)
            verdict = settle(facts)
            if verdict.move is Settling.WAIT:
                return Settled(move=verdict.move, code=verdict.code, detail=verdict.detail)
            if verdict.move in (Settling.ABORT, Settling.END_SOURCE, Settling.END_TARGET):
                await self._act(order, verdict)
                continue
            if verdict.move is Settling.ON_TARGET and generation <= migration.run.generation:
                await self._renew(order, generation)
                continue
            if verdict.move is Settling.ON_SOURCE and facts.target is not Side.DEAD:
                await self._bar(order)
            needed = _needed(facts, deaths)
            return await self._records.conclude(migration, verdict.move, needed, generation)
        raise OutcomeUnknown(
            "MIGRATION_UNSETTLED",
            f"{migration.run.spec.name}: {LOOKS_MOST} readings of {migration.run.host_name} and "
            f"{migration.target.name} did not agree",
        )

    async def _read(self, order: MoveOrder, deaths: Deaths) -> tuple[MigrationFacts, int]:
        migration = order.migration
        run, target = migration.run, migration.target
        job, generation, source, there = False, migration.generation, Side.SILENT, Side.SILENT
        if deaths.source is not None:
            source = Side.DEAD
        else:
            with contextlib.suppress(Unavailable):
                await self._knock(order, run.uri)
                async with self._source(order) as session:
                    job = await session.migration(run.spec.vm_id) is not None
                    source = side_of(await session.lookup(run.spec.vm_id))
        if deaths.target is not None:
            there = Side.DEAD
        else:
            with contextlib.suppress(Unavailable):
                await self._knock(order, target.uri)
                async with self._target(order) as session:
                    found = await session.lookup(run.spec.vm_id)
                    there = side_of(found)
                    if there is Side.RUNS and found is not None:
                        generation = found.generation or generation
        facts = MigrationFacts(
            vm=run.spec.name,
            source_host=run.host_name,
            target_host=target.name,
            source=source,
            target=there,
            job=job,
            abort=order.abort,
        )
        return facts, generation

    async def _knock(self, order: MoveOrder, uri: str) -> None:
        """NoAnswer at once for a dead door: a session would wait for its whole deadline."""
        if await self._hypervisor.knock(uri, order.policy.knock_s) is Knock.SILENT:
            raise NoAnswer("HOST_NO_ANSWER", f"nothing comes back from {uri}")

    async def _act(self, order: MoveOrder, verdict: Verdict) -> None:
        vm_id, run = order.migration.run.spec.vm_id, order.migration.run
        if verdict.move is Settling.ABORT:
            async with self._source(order) as session:
                await session.abort_migration(vm_id, run.generation)
                await self._job_ended(order, session)
            return
        here, generation = self._source, run.generation
        if verdict.move is Settling.END_TARGET:
            here, generation = self._target, order.migration.generation
        async with here(order) as session:
            await session.destroy(vm_id, generation)
            await session.undefine(vm_id, generation)

    async def _make_way(self, order: MoveOrder) -> None:
        """Forget what earlier runs and migrations left on the target, of this VM alone."""
        async with self._target(order) as session:
            await session.undefine(order.migration.run.spec.vm_id, order.migration.generation)

    async def _bar(self, order: MoveOrder) -> None:
        """Let the target refuse this guest: a call sent late must not move it after all."""
        async with self._target(order) as session:
            await session.refuse_arrival(order.migration.run.spec.vm_id, order.migration.generation)

    async def _renew(self, order: MoveOrder, generation: int) -> None:
        """Mark the copy on the target as this migration's: somebody moved it there by hand."""
        async with self._target(order) as session:
            vm_id = order.migration.run.spec.vm_id
            await session.renew_mark(vm_id, generation, order.migration.generation)

    async def _job_ended(self, order: MoveOrder, session: HypervisorSession) -> None:
        async def ended() -> bool:
            return await session.migration(order.migration.run.spec.vm_id) is None

        await until(ended, every_s=0.1, within_s=SWITCH_OVER_S)

    async def _follow(self, order: MoveOrder, session: HypervisorSession) -> None:
        look_s, within_s = order.policy.migrate_look_s, order.policy.migrate_deadline_s
        vm_id = order.migration.run.spec.vm_id

        async def ended() -> bool:
            seen = await session.migration(vm_id)
            if seen is not None:
                await self._records.note_progress(order.migration, seen)
            return seen is None

        if not await until(ended, every_s=look_s, within_s=within_s):
            raise _too_slow(order)

    @asynccontextmanager
    async def _watched(self, order: MoveOrder) -> AsyncIterator[None]:
        """Show progress meanwhile, over a connection of its own; its failures harm nobody."""

        async def watch() -> None:
            with contextlib.suppress(EngineError):
                async with self._source(order) as session:
                    while True:
                        await asyncio.sleep(order.policy.migrate_look_s)
                        seen = await session.migration(order.migration.run.spec.vm_id)
                        if seen is not None:
                            await self._records.note_progress(order.migration, seen)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _source(
        self, order: MoveOrder
    ) -> contextlib.AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(order.migration.run.uri, order.policy.connect_deadline_s)

    def _target(
        self, order: MoveOrder
    ) -> contextlib.AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(order.migration.target.uri, order.policy.connect_deadline_s)


def _needed(facts: MigrationFacts, deaths: Deaths) -> Deaths:
    return Deaths(
        source=deaths.source if facts.source is Side.DEAD else None,
        target=deaths.target if facts.target is Side.DEAD else None,
    )


def _too_slow(order: MoveOrder) -> Conflict:
    problem = too_slow(order.migration.run.spec.name, order.policy.migrate_deadline_s)
    return Conflict(problem.code, problem.detail, next_step=problem.next_step)

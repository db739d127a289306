"""Rows of hosts, as the steps that bring a host into service keep them."""

from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.hosts import AdmitOrder, CopyVerdict, FailOrder
from domain.errors import Conflict, NotFound, Refused, Superseded
from domain.foreign import FIRST_GENERATION
from domain.hosts import HostEvent
from domain.inventory import HostState, RunState
from domain.orders import HostRef
from domain.readings import Domain
from engine.acceptance import Terms
from engine.actions.imports import claim_of
from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.fencing import FenceRecords
from engine.records.planned import start_due
from engine.records.turns_after_reboot import BRINGS_BACK, due, turns_left, with_turns
from store import hosts, inventory, left_down, locks, migrating, operations, planned, runs
from store.database import Database
from store.left_down import FOUND_GONE
from store.rows import Row

log = structlog.get_logger()

LOOKED_AT = 2000
"""VMs left down that one look weighs. Higher: a longer round. Lower: the last start later."""


class HostRecords(FenceRecords):
    """Implements the port of `activities.hosts`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        super().__init__(database, clock)
        self._database = database
        self._backend = backend
        self._clock = clock

    async def judge_copies(
        self, host: HostRef, domains: tuple[Domain, ...]
    ) -> tuple[CopyVerdict, ...]:
        """Which of our domains stay; those of VMs that the engine does not know are left out.

        A copy stays when its run is the VM's active one here, or when the run was held to be lost
        and nothing newer was ever claimed for a start: then it is the VM's only copy, and its run
        is revived. Conflict SAME_MACHINE when one is the very process of another host's run: an old
        copy has an older generation, so this is that host's machine under a second address.
        Conflict COPY_NEWER when one that lives is newer than that run: an adoption has marked it,
        and its books were never written.

        Of domains without our mark only those count that our rows place here; see `_unmarked`.
        """

        async def work(connection: AsyncConnection) -> tuple[CopyVerdict, ...]:
            verdicts: list[CopyVerdict] = []
            for domain in domains:
                newest = await runs.newest_generation(connection, domain.vm_id)
                if newest is None:
                    continue
                if domain.generation is None:
                    verdicts += await self._unmarked(connection, host, domain)
                    continue
                keep = await self._keep(connection, host, domain)
                verdicts.append(CopyVerdict(vm_id=domain.vm_id, keep=keep, generation=newest))
            return tuple(verdicts)

        return await self._database.write(work)

    async def _keep(self, connection: AsyncConnection, host: HostRef, domain: Domain) -> bool:
        run = await runs.active_run(connection, domain.vm_id)
        if run is not None and _is_moving_here(host, run):
            return True  # whose it is, its migration reads from both hosts
        if run is not None:
            current: bool = run["generation"] == domain.generation
            if run["host_id"] == host.host_id:
                return current
            if domain.alive and domain.generation is not None:
                if current:
                    raise await _same_machine(connection, host, domain, run)
                if domain.generation > run["generation"]:
                    raise await _newer_copy(connection, host, domain, run)
            return False
        if not domain.alive or domain.generation is None:
            return False
        return await runs.revive(connection, domain.vm_id, host.host_id, domain.generation)

    async def _unmarked(
        self, connection: AsyncConnection, host: HostRef, domain: Domain
    ) -> tuple[CopyVerdict, ...]:
        """The verdict on a domain without our mark: kept, and to be marked, or foreign (none).

        An import that ended between its rows and its mark leaves such a copy. One that is neither
        is nobody's to touch, and while it runs its run must not be called gone: COPY_UNMARKED.
        """
        run = await runs.unsettled_here(connection, domain.vm_id, host.host_id, host.epoch)
        if run is None or not domain.alive:
            return ()
        vm = await inventory.get(connection, "vm", domain.vm_id)
        claim = None if vm is None else claim_of(vm)
        as_marked = domain.model_copy(update={"generation": FIRST_GENERATION})
        if claim is None or not await self._keep(connection, host, as_marked):
            raise _copy_unmarked(host, domain, run)
        verdict = CopyVerdict(
            vm_id=domain.vm_id, keep=True, generation=FIRST_GENERATION, claim=claim
        )
        return (verdict,)

    async def expected_runs(self, host: HostRef) -> tuple[UUID, ...]:
        """This host's runs whose process a reading from now on would show.

        A start under way is none of them: its `create()` may still come, on a connection opened
        before. It is carried into the new epoch and ends with its own operation. Nor is a run that
        moves: it may run on its target.
        """

        async def work(connection: AsyncConnection) -> tuple[UUID, ...]:
            active = await runs.active_runs(connection, host.host_id)
            return tuple(
                [run["id"] for run in active if not await _in_other_hands(connection, run)]
            )

        return await self._database.read(work)

    async def settle_runs(
        self, host: HostRef, expected: tuple[UUID, ...], alive: tuple[UUID, ...]
    ) -> tuple[str, ...]:
        """Close this host's runs that were expected and read as gone; names of their VMs.

        Superseded (`EPOCH_STALE`) once the host is not `reconciling` at this epoch any more: what
        was read of it then says nothing about the runs that it has now.
        """

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            row = await inventory.get(connection, "host", host.host_id)
            stands = (HostState.RECONCILING, host.epoch)
            if row is None or (row["state"], row["epoch"]) != stands:
                raise _moved_on(host)
            names = []
            for run in await runs.active_runs(connection, host.host_id):
                if run["id"] in expected and run["vm_id"] not in alive:
                    await runs.end(connection, run["id"], FOUND_GONE, self._clock())
                    vm = await inventory.get(connection, "vm", run["vm_id"])
                    # Written with the end itself: the answer of this step may be lost, and who
                    # repeats it finds no run to close.
                    await _leave_down(connection, vm)
                    names.append(vm["name"] if vm else str(run["vm_id"]))
            return tuple(sorted(names))

        return await self._database.write(work)

    async def admit(self, order: AdmitOrder) -> int:
        """Raise the epoch, carry surviving runs into it, move to `up`; the new epoch."""
        host, settled = order.host, order.settled
        epoch = host.epoch + 1

        async def work(connection: AsyncConnection) -> bool:
            row = await inventory.get(connection, "host", host.host_id)
            if row is not None and row["epoch"] == epoch and row["state"] == "up":
                return True  # an earlier try got through and only its answer was lost
            if not await hosts.admit(connection, host.host_id, host.epoch, self._clock()):
                return False
            await hosts.set_capacity(connection, host.host_id, settled.memory_mib, settled.cpus)
            await runs.adopt(connection, host.host_id, epoch)
            await migrating.follow(connection, host.host_id, epoch)
            await self._start_left_down(connection, order)
            waiting = await planned.remembered(connection, host_id=host.host_id)
            await start_due(connection, self._backend, waiting, order.operation_id)
            return True

        if not await self._database.write(work):
            raise _moved_on(host)
        return epoch

    async def _start_left_down(self, connection: AsyncConnection, order: AdmitOrder) -> None:
        """Order the starts of what was found gone here; within the admission.

        What forbids one now may be over later: then `start_left_down` finds it.
        """
        for name in order.settled.ended:  # an earlier release has not noted it with the end
            vm = await inventory.find(connection, "vm", name)
            await _leave_down(connection, vm)
        lost = await left_down.left_down(connection, LOOKED_AT, host_id=order.host.host_id)
        for run in await due(connection, lost, self._clock()):
            if await self._start(connection, order.operation_id, run["vm_id"]):
                await left_down.pick_up(connection, run["id"])

    async def start_left_down(self) -> int:
        """Order the starts that had to wait for an armed cluster, or for somebody's lock; how many.

        Repeatable, and safe beside others.
        """

        async def looked(connection: AsyncConnection) -> list[Row]:
            lost = await left_down.left_down(connection, LOOKED_AT)
            return await with_turns(connection, await due(connection, lost, self._clock()))

        started = 0
        for run in await self._database.read(looked):
            try:
                started += await self._database.write(partial(self._pick_up, run["id"]))
            except Refused as error:  # the others are to be started all the same
                log.warning("left down", vm_id=str(run["vm_id"]), code=error.code, why=error.detail)
        return started

    async def _pick_up(self, run_id: UUID, connection: AsyncConnection) -> bool:
        waiting = await left_down.left_down(connection, 1, run_id=run_id)
        if not waiting:
            return False
        run = waiting[0]
        activation = await operations.newest_of(connection, BRINGS_BACK, run["host_id"])
        if activation is None or not await self._start(connection, activation, run["vm_id"]):
            return False
        return await left_down.pick_up(connection, run_id)

    async def _start(self, connection: AsyncConnection, activation: UUID, vm_id: UUID) -> bool:
        """Order a start as a part of an activation; False while it has no turn, or is locked."""
        parent = await operations.get(connection, activation)
        if parent is None or await locks.holder(connection, "vm", vm_id) is not None:
            return False
        if await turns_left(connection, parent) < 1:
            return False
        start = StartVm(vm_id=vm_id)
        await self._backend.run_child(start, parent, Terms(), reason="its host rebooted")
        return True

    async def fail(self, order: FailOrder) -> None:
        """Move the host to `non_operational` with the reason.

        Nothing happens to a host that is not `reconciling` at this epoch any more: it is in other
        hands, and a late word about an old activation must not disturb its recovery.
        """
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            row = await inventory.get(connection, "host", order.host.host_id)
            if row is None or row["epoch"] != order.host.epoch:
                return
            if row["state"] == HostState.RECONCILING:
                await hosts.move(connection, row["id"], HostEvent.FAILED, order.why, now)

        await self._database.write(work)


async def _leave_down(connection: AsyncConnection, vm: Row | None) -> None:
    """Note that a VM that was found gone is to be started again, if somebody wants that."""
    if vm is not None and vm["protected"] and vm["wanted"]:
        await left_down.leave_down(connection, vm["id"])


def _moved_on(host: HostRef) -> Superseded:
    return Superseded(
        "EPOCH_STALE",
        f"{host.name} does not stand at epoch {host.epoch} in reconciling any more",
        next_step="look at the host and activate it again",
    )


async def _same_machine(
    connection: AsyncConnection, host: HostRef, domain: Domain, run: Row
) -> Conflict:
    name = await _name_of(connection, run["host_id"])
    return Conflict(
        "SAME_MACHINE",
        f"{domain.name} runs on {host.name} with generation {run['generation']}, which is the copy "
        f"that {name} runs: both are one machine, or the VM was moved by hand; nothing was touched",
        next_step=f"compare the addresses of {host.name} and {name} and remove the one that is too "
        "much; a VM that was moved by hand is moved back",
        host=host.name,
        other=name,
        generation=run["generation"],
    )


async def _newer_copy(
    connection: AsyncConnection, host: HostRef, domain: Domain, run: Row
) -> Conflict:
    name = await _name_of(connection, run["host_id"])
    return Conflict(
        "COPY_NEWER",
        f"{domain.name} runs on {host.name} with generation {domain.generation}, and should run on "
        f"{name} with generation {run['generation']}: it may be the only copy, which somebody has "
        "moved, and its adoption did not end; nothing was touched",
        next_step=f"look whether {domain.name} runs on {name}: if not, move it back there by hand "
        f"or shut it down on {host.name}; then activate {host.name} again",
        host=host.name,
        other=name,
        guest=domain.name,
        generation=domain.generation,
    )


async def _name_of(connection: AsyncConnection, host_id: UUID) -> str:
    found = await inventory.get(connection, "host", host_id)
    return found["name"] if found else str(host_id)


def _copy_unmarked(host: HostRef, domain: Domain, run: Row) -> Conflict:
    return Conflict(
        "COPY_UNMARKED",
        f"{domain.name} runs on {host.name} without our mark, and its VM had generation "
        f"{run['generation']} here: the engine neither ends it nor starts another beside it, and "
        "nothing was touched",
        next_step="find out who removed the mark; once its VM may go, end the guest by hand "
        f"(`virsh destroy {domain.vm_id}`), then activate {host.name} again",
        host=host.name,
        guest=domain.name,
        generation=run["generation"],
    )


def _is_moving_here(host: HostRef, run: Row) -> bool:
    return run["state"] == RunState.MIGRATING and host.host_id in (
        run["host_id"],
        run["target_host_id"],
    )


async def _in_other_hands(connection: AsyncConnection, run: Row) -> bool:
    if run["state"] == RunState.MIGRATING:
        return True
    if run["state"] not in (RunState.PLACED, RunState.STARTING):
        return False
    owner = await operations.get(connection, run["operation_id"])
    return owner is not None and owner["state"] in operations.OPEN


async def host_row(connection: AsyncConnection, host_id: UUID) -> Row:
    """A host that a step is about; NotFound."""
    found = await inventory.get(connection, "host", host_id)
    if found is None:
        raise NotFound("HOST_NOT_FOUND", f"there is no host {host_id}")
    return found

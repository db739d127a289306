"""What one VM is made of: more than its line in a list."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failback import Failback
from domain.inventory import DEFAULT_MACHINE, OnHang
from engine.failback import standing
from engine.queries.base import Query, QueryParams, missing
from engine.queries.inventory import GetVm, GetVmQuery
from engine.records.making_room import stops_again_at
from engine.views import FailbackView, GroupRef, NicView, VmDetailView
from store import affinity, ended_runs, inventory, planned, runs, shown, vms
from store.rows import Row


class ShowVm(QueryParams):
    """One VM with its disks, cards and groups."""

    vm_id: UUID


class ShowVmQuery(Query[ShowVm, VmDetailView]):
    """One VM: where it runs, and all that it is made of."""

    params = ShowVm

    async def answer(
        self, connection: AsyncConnection, params: ShowVm, now: datetime
    ) -> VmDetailView:
        """NotFound when it is not there."""
        line = await GetVmQuery().answer(connection, GetVm(vm_id=params.vm_id), now)
        row = await inventory.get(connection, "vm", params.vm_id)
        if row is None:
            raise missing("VM", params.vm_id)
        run = await runs.active_run(connection, params.vm_id)
        last = None if run else await ended_runs.last(connection, params.vm_id)
        cards = (await vms.nics_of(connection, [params.vm_id])).get(params.vm_id, ())
        groups = await affinity.groups_of_vm(connection, params.vm_id)
        back = await planned.of_vm(connection, params.vm_id)
        spec = row["spec"]
        return VmDetailView(
            **line.model_dump(),
            disks=tuple(spec["disks"]),
            boot=spec["boot"],
            machine=spec.get("machine", DEFAULT_MACHINE),
            nics=tuple(NicView(**{f: card[f] for f in NicView.model_fields}) for card in cards),
            affinity_groups=tuple(GroupRef(**group) for group in groups),
            gave_way=tuple((run or {}).get("gave_way") or ()),
            paused=(run or {}).get("paused_reason"),
            migrating_to=await _name(connection, (run or {}).get("target_host_id")),
            starts_again_with=back["host_name"] if back and back["frozen"] and not run else None,
            stops_again_at=await stops_again_at(connection, row["id"], run) if run else None,
            also_seen_on=await shown.elsewhere(connection, row, _where(run)),
            agent_heard=run["agent_heard"] if run and row["on_hang"] != OnHang.OFF else None,
            agent_silent_since=(run or {}).get("agent_silent_since"),
            end_reason=(last or {}).get("end_reason"),
            ended_at=(last or {}).get("ended_at"),
            home=await _name(connection, row["home_id"]),
            goes_home=await _goes_home(connection, row, now),
        )


async def _goes_home(connection: AsyncConnection, vm: Row, now: datetime) -> FailbackView | None:
    if vm["home_id"] is None and vm["failback"] == Failback.OFF:
        return None
    told = await standing(connection, vm)
    at = None if told.tries_in_s is None else now + timedelta(seconds=told.tries_in_s)
    return FailbackView(code=told.code, detail=told.detail, tries_at=at)


async def _name(connection: AsyncConnection, host_id: UUID | None) -> str | None:
    host = None if host_id is None else await inventory.get(connection, "host", host_id)
    return None if host is None else host["name"]


def _where(run: Row | None) -> tuple[UUID, ...]:
    return () if run is None else (run["host_id"], run["target_host_id"])

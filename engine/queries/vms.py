"""What one VM is made of: more than its line in a list."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import DEFAULT_MACHINE
from engine.queries.base import Query, QueryParams, missing
from engine.queries.inventory import GetVm, GetVmQuery
from engine.views import GroupRef, NicView, VmDetailView
from store import affinity, ended_runs, inventory, runs, vms


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
            end_reason=(last or {}).get("end_reason"),
            ended_at=(last or {}).get("ended_at"),
        )

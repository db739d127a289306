"""Questions about what has not happened: what the loss of a host would mean now."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fence_budgets import Tally
from domain.forecast import Back, forecast
from domain.inventory import HostState
from domain.placement import Guest
from domain.profiles import TIMINGS, Profile, predict
from domain.storm import half_silent
from engine.affinity import affinity_of
from engine.queries.base import Query, QueryParams, missing
from engine.queries.fencing import fencing_of
from engine.records.runs import rooms_of
from engine.refs import guest_of, ready_rule
from engine.views_explained import ForecastView, ReturnView
from store import fence_budgets, inventory, runs
from store.rows import Row


class ForecastLoss(QueryParams):
    """What if this host died now?"""

    host_id: UUID


class ForecastLossQuery(Query[ForecastLoss, ForecastView]):
    """By the planner that a recovery uses, from what the engine knows at this moment."""

    params = ForecastLoss

    async def answer(
        self, connection: AsyncConnection, params: ForecastLoss, now: datetime
    ) -> ForecastView:
        """NotFound when the host is not there."""
        host = await inventory.get(connection, "host", params.host_id)
        if host is None:
            raise missing("host", params.host_id)
        cluster = await inventory.get(connection, "cluster", host["cluster_id"])
        assert cluster is not None
        vms, guests = await _guests(connection, host["id"])
        rooms = await rooms_of(connection, cluster["id"])
        left = tuple(room for room in rooms if room.host_id != host["id"])
        rules = await affinity_of(connection, cluster["id"])
        elsewhere = {vm: where for vm, where in rules.running.items() if where != host["id"]}
        found = forecast(
            guests,
            left,
            rules.model_copy(update={"running": elsewhere}),
            predict(TIMINGS[Profile(cluster["profile"])]),
            {vm_id: rule for vm_id, vm in vms.items() if (rule := ready_rule(vm)) is not None},
            cluster["starts_per_host"],
        )
        fencing = (await fencing_of(connection, [host["id"]]))[host["id"]]
        return ForecastView(
            host_id=host["id"],
            host_name=host["name"],
            profile=cluster["profile"],
            armed=cluster["armed"],
            blocks_on_power_loss=fencing.blocks_on_power_loss,
            hosts_left=len(left),
            isolation_needs_approval=await _would_be_held(connection, host),
            back=tuple(_view(one, vms[one.vm_id]) for one in found.back),
            waits=found.waits,
            stay_down=found.stay_down,
        )


async def _would_be_held(connection: AsyncConnection, host: Row) -> bool:
    """Whether so many hosts would be silent with this one that its fence needs approval."""
    rows = await fence_budgets.tallies(connection)
    mine = [one for row in rows if (one := Tally(**row)).cluster_id == host["cluster_id"]]
    silent = sum(one.silent for one in mine) + (host["state"] == HostState.UP)
    return half_silent(max(silent, 1), sum(one.serving for one in mine))


async def _guests(
    connection: AsyncConnection, host_id: UUID
) -> tuple[dict[UUID, Row], tuple[Guest, ...]]:
    active = await runs.active_runs(connection, host_id)
    vms = await inventory.get_many(connection, "vm", [run["vm_id"] for run in active])
    depends = await inventory.dependencies(connection)
    wanted = [vms[run["vm_id"]] for run in active if vms[run["vm_id"]]["wanted"]]
    return vms, tuple(guest_of(vm, depends.get(vm["id"], ())) for vm in wanted)


def _view(back: Back, vm: Row) -> ReturnView:
    budget_s = vm["budget_s"]
    slowest = max(back.power_cut_s, back.isolation_s)
    return ReturnView(
        **back.model_dump(),
        budget_s=budget_s,
        within_budget=None if budget_s is None else slowest <= budget_s,
    )

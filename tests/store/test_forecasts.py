"""`host forecast` asks the planner about a host that still lives."""

from uuid import UUID

import pytest

from domain.errors import NotFound
from engine.queries.forecasts import ForecastLoss
from engine.views_explained import ForecastView
from store.ids import new_id
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


async def asked(engine: Engine, host: UUID) -> ForecastView:
    view: ForecastView = await engine.backend.run_query(ForecastLoss(host_id=host))
    return view


async def lab(engine: Engine) -> dict[str, UUID]:
    """h1 with a protected VM that has a budget, and one that nobody protects; h2 is free."""
    world = engine.world
    hosts = {name: await world.host(name) for name in ("h1", "h2")}
    for name, values in {"db": {"protected": True, "budget_s": 10}, "scratch": {}}.items():
        await world.running(await world.vm(name, **values), hosts["h1"])
    return hosts


async def test_a_forecast_names_where_and_when_and_what_stays_down(engine: Engine) -> None:
    hosts = await lab(engine)
    view = await asked(engine, hosts["h1"])
    (db,) = view.back
    assert (db.name, db.host, db.power_cut_s, db.isolation_s) == ("db", "h2", 5.0, 21.0)
    assert (db.budget_s, db.within_budget) == (10, False)  # an isolation takes longer
    assert (view.stay_down, view.hosts_left, view.armed) == (("scratch",), 1, True)


async def test_asking_for_a_forecast_changes_nothing(engine: Engine) -> None:
    hosts = await lab(engine)
    before = [await engine.rows(table) for table in ("vm_run", "host", "operation", "outbox")]
    await asked(engine, hosts["h1"])
    assert [await engine.rows(t) for t in ("vm_run", "host", "operation", "outbox")] == before


async def test_the_last_host_has_nowhere_to_send_its_vms(engine: Engine) -> None:
    hosts = await lab(engine)
    await engine.world.put("host", hosts["h2"], state="maintenance")
    view = await asked(engine, hosts["h1"])
    assert (view.hosts_left, view.back) == (0, ())
    assert [one.why for one in view.waits] == [
        f"db needs {await memory(engine)} MiB; the largest gap on 0 usable hosts is 0 MiB"
    ]


async def memory(engine: Engine) -> int:
    (row,) = [row for row in await engine.rows("vm") if row["name"] == "db"]
    return int(row["memory_mib"])


async def test_a_host_that_nothing_can_prove_dead_is_told_first(engine: Engine) -> None:
    hosts = await lab(engine)
    assert (await asked(engine, hosts["h1"])).blocks_on_power_loss


@pytest.mark.parametrize(("silent", "held"), [(0, False), (1, True)])
async def test_it_tells_where_its_isolation_would_be_held_with_those_that_are_silent_already(
    engine: Engine, silent: int, held: bool
) -> None:
    world = engine.world
    hosts = [await world.host(f"n{number}") for number in range(4)]
    for host in hosts[:silent]:
        await world.put("host", host, state="non_responsive")
    assert (await asked(engine, hosts[3])).isolation_needs_approval is held


async def test_a_host_that_is_not_there_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound):
        await asked(engine, new_id())

"""The claim of a fence holds the budgets of cluster, rack and site, on every database (I5)."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest

from domain.fence_budgets import Scope
from store import fence_budgets, fence_claims, inventory
from store.ids import new_id
from store.judged import Judged
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_fencing import HEARD, claim, limits, silent_host
from tests.store.test_recovery_records import Death, assess_order
from tests.store.world import World

pytestmark = pytest.mark.store


async def silent_rack(world: World, rack: str, hosts: int, site: str = "") -> list[UUID]:
    """So many silent hosts in a rack."""
    names = [f"{site}{rack}-h{n}" for n in range(hosts)]
    return [await silent_host(world, name, rack=rack, site=site) for name in names]


async def test_a_rack_has_a_budget_beside_that_of_its_cluster(world: World) -> None:
    await limits(world, fences_max=5, rack_fences_max=1)
    first, second = await silent_rack(world, "r1", 2)
    (elsewhere,) = await silent_rack(world, "r2", 1)
    assert await claim(world, first)
    assert not await claim(world, second)
    assert await claim(world, elsewhere)
    await world.watch(301)
    assert await claim(world, second)


async def test_the_budget_of_the_cluster_holds_across_racks(world: World) -> None:
    await limits(world, fences_max=1, rack_fences_max=5)
    (first,), (second,) = await silent_rack(world, "r1", 1), await silent_rack(world, "r2", 1)
    assert await claim(world, first)
    assert not await claim(world, second)


async def test_a_site_has_a_budget_and_racks_of_two_sites_are_two_racks(world: World) -> None:
    await limits(world, fences_max=9, rack_fences_max=1, site_fences_max=2)
    (north,) = await silent_rack(world, "r1", 1, "north")
    (south,) = await silent_rack(world, "r1", 1, "south")
    second, third = await silent_rack(world, "r2", 2, "north")
    assert await claim(world, north)
    assert await claim(world, south)
    assert await claim(world, second)
    assert not await claim(world, third)
    await limits(world, rack_fences_max=9)
    assert not await claim(world, third), "the site's budget is spent"


async def test_hosts_of_no_rack_make_no_failure_domain(world: World) -> None:
    await limits(world, fences_max=9, rack_fences_max=1, site_fences_max=1)
    for name in ("h1", "h2"):
        assert await claim(world, await silent_host(world, name))


@pytest.mark.parametrize(("percent", "allowed"), [(10, 1), (34, 1), (50, 2), (60, 3), (100, 5)])
async def test_a_percentage_of_the_hosts_is_rounded_down_and_never_below_one(
    world: World, percent: int, allowed: int
) -> None:
    await limits(world, fences_max=9, rack_fences_percent=percent)
    rack = await silent_rack(world, "r1", 5)
    assert [await claim(world, host) for host in rack] == [n < allowed for n in range(5)]


async def test_the_stricter_of_number_and_percentage_holds(world: World) -> None:
    await limits(world, fences_max=9, fences_percent=50)
    hosts = await silent_rack(world, "r1", 4)
    assert [await claim(world, host) for host in hosts] == [True, True, False, False]
    await limits(world, fences_max=1)
    await world.watch(301)
    assert [await claim(world, host) for host in hosts[2:]] == [True, False]


async def test_hosts_in_maintenance_and_removed_ones_raise_no_percentage(world: World) -> None:
    await limits(world, fences_max=9, fences_percent=50)
    first, second = await silent_rack(world, "r1", 2)
    await world.host("h8", rack="r1", state="maintenance")
    await world.host("h9", rack="r1", state="down", removed_at=world.now)
    assert await claim(world, first)
    assert not await claim(world, second)
    await world.host("h10", rack="r1")
    await world.host("h11", rack="r1", state="down")
    assert await claim(world, second)


async def test_a_rack_is_one_whatever_the_clusters_of_its_hosts(world: World) -> None:
    other: Row = {"id": new_id(), "name": "c2", "profile": "fast", "virt_type": "qemu"}
    await world.do(inventory.insert, "cluster", other | {"created_at": world.now})
    await limits(world, rack_fences_max=1)
    neighbour = await silent_host(world, "h1", rack="r1", cluster_id=other["id"])
    mine = await silent_host(world, "h2", rack="r1")
    assert await claim(world, neighbour)
    assert not await claim(world, mine)
    await limits(world, rack_fences_max=None)
    assert await claim(world, mine), "the cluster's own budget counts its own hosts"


@pytest.mark.parametrize("column", ["rack_fences_max", "site_fences_max"])
async def test_concurrent_fences_in_one_domain_never_exceed_its_budget(
    world: World, column: str
) -> None:
    await limits(world, **{"fences_max": 9, column: 2})
    silent = await silent_rack(world, "r1", 5, "north")
    owners = [await world.operation() for _ in silent]

    def fence(host: UUID, owner: UUID) -> Any:
        terms: Row = {"host_id": host, "epoch": 1, "operation_id": owner}
        known = Judged(HEARD, ("m1",))
        return partial(fence_claims.claim_fence, **terms, known=known, now=world.now)

    won = await world.together(*map(fence, silent, owners))
    assert sum(won) == 2


async def test_what_the_claim_refuses_is_what_the_guard_has_said(engine: Engine) -> None:
    world = engine.world
    death = await Death(engine, await world.host("h1", rack="r1", site="north")).build()
    await world.put("host", death.host, state="non_responsive")
    first, second = await silent_rack(world, "r1", 2, "north")
    await world.host("h9", rack="r2", site="north")
    await limits(world, fences_max=3, rack_fences_max=2, site_fences_percent=50)
    for host, age in ((first, 100), (second, 50)):
        assert await claim(world, host)
        await world.watch(age)
    facts = await engine.recoveries.fence_facts(await assess_order(death), ())
    told = {one.scope: (one.name, one.spent, one.hosts, one.limit) for one in facts.budgets}
    assert told == {
        Scope.CLUSTER: ("c1", 2, 4, 3),
        Scope.RACK: ("r1", 2, 3, 2),
        Scope.SITE: ("north", 2, 4, 2),
    }
    assert [one.scope for one in facts.budgets if one.exhausted] == [Scope.RACK, Scope.SITE]
    at = facts.budgets[1].frees_at
    assert at is not None
    assert 149 <= (at - world.now).total_seconds() <= 211  # the first is 150 s old by now
    assert facts.domain is not None
    assert facts.domain.told() == "3 of 3 hosts of rack r1 are silent, 0 of 1 elsewhere"
    assert not await claim(world, death.host)
    await world.do(fence_budgets.tallies)

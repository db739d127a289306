"""What anybody may ask: which queries those are, and that none of them tells of the inventory."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from domain.errors import Denied, Unavailable
from domain.profiles import Profile
from engine.actions.clusters import CreateCluster
from engine.public import BURST, PER_S, SOURCES_MAX, RateLimit, TooManyRequests, network_of
from engine.queries.base import FixedQuery
from engine.queries.events import AuditEvents
from engine.queries.inventory import ListVms
from engine.queries.public import (
    LATE_S,
    AuthMethods,
    Capabilities,
    Health,
    TimingProfiles,
    Version,
)
from engine.registry import all_actions, all_queries
from store import migrate, plumbing
from store.database import Database
from store.ids import made_at, new_id
from tests.store.engine_room import Agents, Engine, Sealer
from tests.store.filled import fill

pytestmark = pytest.mark.store

PUBLIC = (AuthMethods, Capabilities, Health, TimingProfiles, Version)
PRIVATE = {
    *("ListClusters", "GetCluster", "ListNetworks", "GetNetwork", "ListHosts", "GetHost"),
    *("HostSamples", "ForeignGuests", "ListFenceDevices", "GetFenceDevice", "ListVms", "GetVm"),
    *("HostMonitors", "HostSsh", "ShowVm"),
    *("ListAffinityGroups", "GetAffinityGroup", "GetOperation", "ListOperations"),
    *("ListIncidents", "GetIncident", "ExplainIncident", "VerifyCertificates", "IncidentStats"),
    *("ForecastLoss", "ListApprovals", "ListEvents", "AuditEvents", "ExplainOperation"),
}
NOW = made_at(new_id())


def test_each_query_is_public_or_not_exactly_as_this_list_says() -> None:
    queries = all_queries()
    names = [query.params.__name__ for query in queries]
    assert len(set(names)) == len(names)
    public = {query.params.__name__ for query in queries if query.public}
    assert public == {params.__name__ for params in PUBLIC}
    assert set(names) - public == PRIVATE


async def test_a_private_query_is_refused_to_whoever_has_not_said_who_he_is(
    engine: Engine,
) -> None:
    for params in (ListVms(), AuditEvents()):
        with pytest.raises(Denied, match="QUERY_NOT_PUBLIC"):
            await engine.backend.run_public_query(params, "192.0.2.1")


def texts(rows: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Every id, name, address and other word that the inventory is made of."""
    found: set[str] = set()

    def take(value: Any) -> None:
        if isinstance(value, dict):
            for part in value.values():
                take(part)
        elif isinstance(value, list):
            for part in value:
                take(part)
        elif isinstance(value, UUID):
            found.update((str(value), value.hex))
        elif isinstance(value, str) and len(value) > 1:
            found.add(value.strip())

    for table in rows.values():
        for row in table:
            take(row)
    return found


async def test_no_public_answer_holds_anything_of_the_inventory(engine: Engine) -> None:
    rows = await engine.world.database.alone(fill)
    private = texts(rows) | {str(engine.world.cluster_id), "c1"}
    assert len(private) > 100
    for params in PUBLIC:
        answer = await engine.backend.run_public_query(params(), "192.0.2.1")
        parts = answer if isinstance(answer, tuple) else (answer,)
        told = " ".join(part.model_dump_json() for part in parts)
        assert len(told) > 20
        assert [text for text in sorted(private) if text in told] == [], params


async def test_public_answers_are_the_same_whatever_the_inventory_holds(engine: Engine) -> None:
    async def answers() -> list[Any]:
        asked = [params() for params in PUBLIC if params is not Health]
        return [await engine.backend.run_public_query(one, "192.0.2.1") for one in asked]

    before = await answers()
    await engine.world.database.alone(fill)
    assert await answers() == before


async def test_capabilities_are_what_the_actions_themselves_declare(engine: Engine) -> None:
    view = await engine.backend.run_query(Capabilities())
    actions = all_actions(Sealer(), Agents())
    assert [info.kind for info in view.actions] == sorted(action.kind for action in actions)
    (start,) = (info for info in view.actions if info.kind == "vm.start")
    assert (start.permission, start.durable) == ("vm.operate", True)


async def test_every_timing_profile_tells_what_it_predicts(engine: Engine) -> None:
    profiles = await engine.backend.run_query(TimingProfiles())
    assert [one.name for one in profiles] == [profile.value for profile in Profile]
    assert all(0 < one.predicted_power_cut_s < one.predicted_isolation_s for one in profiles)


async def test_health_is_ok_when_the_tables_fit_and_nothing_waits(engine: Engine) -> None:
    view = await engine.backend.run_query(Health())
    assert (view.status, view.starts_wait_s, view.events_wait_s) == ("ok", 0.0, 0.0)
    assert view.revision == view.revision_expected == migrate.newest()


async def test_health_is_degraded_while_events_wait_for_their_numbers(engine: Engine) -> None:
    await engine.act(CreateCluster(name="c2"))
    engine.world.later(LATE_S - 1)
    view = await engine.backend.run_query(Health())
    assert (view.status, view.events_wait_s) == ("ok", LATE_S - 1)
    engine.world.later(1)
    assert (await engine.backend.run_query(Health())).status == "degraded"
    await engine.world.do(plumbing.number_events, 10)
    assert (await engine.backend.run_query(Health())).status == "ok"


async def test_health_is_degraded_while_temporal_is_not_told_what_is_posted(
    engine: Engine,
) -> None:
    world, row_id = engine.world, new_id()
    operation = await world.operation()
    await world.do(plumbing.post, row_id, operation, world.now)
    await world.do(plumbing.postpone, row_id, NOW + timedelta(days=1), "Temporal is down")
    world.now = made_at(row_id) + timedelta(seconds=LATE_S)
    view = await engine.backend.run_query(Health())
    assert (view.status, view.starts_wait_s) == ("degraded", LATE_S)
    await world.do(plumbing.delivered, row_id, world.now)
    assert (await engine.backend.run_query(Health())).status == "ok"


@pytest.mark.parametrize("kind", ["sqlite-file", "postgresql"], indirect=True)
async def test_health_is_degraded_when_the_tables_are_of_another_revision(engine: Engine) -> None:
    table = sa.table("alembic_version", sa.column("version_num"))

    async def set_back(connection: Any) -> None:
        await connection.execute(table.update().values(version_num="0001"))

    await engine.world.database.write(set_back)
    view = await engine.backend.run_query(Health())
    assert (view.status, view.revision) == ("degraded", "0001")


@pytest.mark.parametrize("kind", ["sqlite-file"], indirect=True)
async def test_all_but_health_are_answered_while_the_database_is_away(engine: Engine) -> None:
    engine.backend.database = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    for params in PUBLIC:
        asking = engine.backend.run_public_query(params(), "192.0.2.1")
        if params is Health:
            with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
                await asking
        else:
            assert await asking
    fixed = {query.params for query in all_queries() if isinstance(query, FixedQuery)}
    assert fixed == set(PUBLIC) - {Health}
    await engine.backend.database.close()


class Clock:
    """Seconds that go on when told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def asked(limit: RateLimit, source: str, times: int) -> int:
    """How many of so many requests get through."""
    through = 0
    for _ in range(times):
        try:
            limit.take(source)
        except TooManyRequests:
            continue
        through += 1
    return through


def test_a_source_may_ask_in_a_burst_and_then_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(clock)
    assert asked(limit, "192.0.2.1", 100) == BURST
    clock.s += 1
    assert asked(limit, "192.0.2.1", 100) == PER_S
    clock.s += 3600
    assert asked(limit, "192.0.2.1", 100) == BURST


def test_sources_do_not_use_up_each_other_s_requests() -> None:
    limit = RateLimit(Clock())
    asked(limit, "192.0.2.1", 100)
    assert asked(limit, "192.0.2.2", 100) == BURST


def test_all_addresses_of_one_ipv6_network_are_one_source() -> None:
    limit = RateLimit(Clock())
    assert sum(asked(limit, f"2001:db8::{n:x}", 1) for n in range(1, 100)) == BURST
    assert asked(limit, "2001:db8:0:1::1", 1) == 1
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("unix socket") == "unix socket"


def test_the_refusal_says_when_to_ask_again_and_that_is_true() -> None:
    clock = Clock()
    limit = RateLimit(clock)
    asked(limit, "192.0.2.1", 100)
    with pytest.raises(TooManyRequests) as refused:
        limit.take("192.0.2.1")
    wait_s = refused.value.context["retry_after_s"]
    assert isinstance(wait_s, float)
    clock.s += wait_s - 0.01
    assert asked(limit, "192.0.2.1", 1) == 0
    clock.s += 0.02
    assert asked(limit, "192.0.2.1", 1) == 1


def test_no_more_sources_are_remembered_than_the_limit_says() -> None:
    limit = RateLimit(Clock())
    for number in range(SOURCES_MAX + 5):
        limit.take(f"source {number}")
    assert len(limit._buckets) == SOURCES_MAX

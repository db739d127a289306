"""The statements that claim a fence and that certify a death hold every condition (I5, I8)."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from store import fence_budgets, fence_claims, incidents, inventory, observations, pages
from store.ids import new_id
from store.judged import Judged
from store.pages import Slice
from store.rows import Row, changed, many
from store.schema_ha import fence_claim, monitor, observation
from tests.store.world import START, World

pytestmark = pytest.mark.store

WINDOW_S = 300.0
HEARD = {"m1": 1}


async def silent_host(world: World, name: str = "h1", **values: Any) -> UUID:
    if await world.do(observations.find_monitor, "m1") is None:
        await world.monitor()
    host = await world.host(name, **{"state": "non_responsive"} | values)
    await world.observe(host, verdict="non_responsive", heard_sequence=1)
    return host


async def claim(world: World, host: UUID, operation: UUID | None = None, **values: Any) -> bool:
    operation = operation or await world.operation()
    known = Judged(values.pop("heard", HEARD), values.pop("eyes", ("m1",)))
    terms: Row = {"known": known, "now": world.now}
    epoch = values.pop("epoch", 1)
    return await world.do(fence_claims.claim_fence, host, epoch, operation, **terms | values)


async def limits(world: World, **values: int | None) -> None:
    """Give the cluster other fence budgets."""
    await world.put("cluster", world.cluster_id, **values)


async def claims(world: World) -> list[Row]:
    return await world.do(many, fence_claim.select())


async def test_a_silent_host_of_an_armed_cluster_may_be_fenced(world: World) -> None:
    host = await silent_host(world)
    assert await claim(world, host)
    assert (await world.get("host", host))["state"] == "fencing"
    assert [row["cluster_id"] for row in await claims(world)] == [world.cluster_id]


@pytest.mark.parametrize("state", ["cancelling", "cancelled", "failed", "succeeded"])
@pytest.mark.parametrize("whose", ["its own", "its recovery's"])
async def test_a_fence_whose_operation_or_recovery_has_ended_or_is_to_be_cancelled_cuts_nothing(
    world: World, whose: str, state: str
) -> None:
    host = await silent_host(world)
    recovery = await world.operation(host, kind="host.recover", state="running")
    fence = await world.operation(host, kind="host.fence", state="running", parent_id=recovery)
    ended = fence if whose == "its own" else recovery
    await world.put("operation", ended, state=state)
    assert not await claim(world, host, fence)
    assert (await world.get("host", host))["state"] == "non_responsive"
    await world.put("operation", ended, state="running")
    assert await claim(world, host, fence)


async def test_a_disarmed_cluster_is_not_fenced(world: World) -> None:
    host = await silent_host(world)
    await world.do(inventory.arm_cluster, world.cluster_id, armed=False)
    assert not await claim(world, host)
    await world.do(inventory.arm_cluster, world.cluster_id, armed=True)
    assert await claim(world, host)


async def test_the_host_that_the_engine_runs_on_is_never_fenced(world: World) -> None:
    assert not await claim(world, await silent_host(world, own_host=True))


async def test_a_host_heard_since_the_incident_began_is_not_fenced(world: World) -> None:
    host = await silent_host(world)
    await world.observe(host, 2, verdict="connecting", heard_sequence=2)
    assert not await claim(world, host)


@pytest.mark.parametrize("jump_s", [-3600, 3600])
async def test_what_was_heard_since_is_told_without_the_time_of_day(
    world: World, jump_s: float
) -> None:
    host = await silent_host(world)
    incident = await world.incident(host)
    clock = {"last_answer_at": START + timedelta(seconds=jump_s)}
    silent: Row = {"verdict": "non_responsive", "heard_sequence": 1}
    await world.observe(host, 2, **clock, **silent)
    assert await claim(world, host)
    await world.observe(host, 3, **clock)
    assert not await claim(world, host)
    assert not await issue(world, host, incident)


async def test_a_host_that_a_new_monitor_hears_is_not_fenced(world: World) -> None:
    host = await silent_host(world)
    assert not await claim(world, host, heard={})
    assert not await claim(world, host, heard={"m2": 1})
    assert await claim(world, host, heard={"m1": 1, "m2": 1})


async def test_a_monitor_that_starts_afresh_has_not_heard_what_it_heard_before(
    world: World,
) -> None:
    host = await silent_host(world)
    await world.monitor()
    await world.observe(host, 2, verdict="non_responsive")
    assert await claim(world, host)
    await world.observe(host, 3)
    assert not await claim(world, host)


async def test_a_fence_that_rests_on_nobody_s_word_is_not_claimed(world: World) -> None:
    host = await silent_host(world)
    assert not await claim(world, host, eyes=())
    assert not await claim(world, host, eyes=("m1", "m2"))
    assert await claim(world, host, eyes=("m1",))


async def test_the_word_of_a_monitor_that_is_gone_does_not_count(world: World) -> None:
    host = await silent_host(world)
    assert await world.do(observations.hold_gone, "m1", 1, world.now)
    assert not await claim(world, host)
    await world.observe(host, 2, verdict="non_responsive", heard_sequence=1)
    assert await claim(world, host)


async def test_a_host_that_its_monitor_has_left_is_not_fenced_by_its_word(world: World) -> None:
    host = await silent_host(world)
    await world.do(changed, observation.delete())
    assert not await claim(world, host)


@pytest.mark.parametrize("blind", [{"others_seen": 0}, {"blind_at": START}])
async def test_a_monitor_that_sees_no_other_host_has_no_word(world: World, blind: Row) -> None:
    host, seen = await silent_host(world), {"verdict": "non_responsive", "heard_sequence": 1}
    others = {key: blind[key] for key in blind if key == "others_seen"}
    await world.observe(host, 2, **seen, **others)
    await world.do(changed, monitor.update().values(blind_at=blind.get("blind_at")))
    assert not await claim(world, host)
    await world.observe(host, 3, **seen)
    assert await claim(world, host)


async def test_whom_a_monitor_hears_again_is_not_fenced_though_nobody_noted_the_answer(
    world: World,
) -> None:
    host = await silent_host(world)
    await world.observe(host, 2, verdict="refused", heard_sequence=1)
    assert not await claim(world, host)


async def test_what_another_host_said_does_not_save_the_silent_one(world: World) -> None:
    host = await silent_host(world)
    await world.observe(await world.host("h2"), 2)
    assert await claim(world, host)


@pytest.mark.parametrize(
    "state", ["up", "connecting", "down", "reconciling", "maintenance", "error"]
)
async def test_only_a_host_that_is_held_to_be_silent_is_fenced(world: World, state: str) -> None:
    assert not await claim(world, await silent_host(world, state=state))


async def test_a_silent_host_out_of_service_is_fenced_and_stays_out_of_service(
    world: World,
) -> None:
    host = await silent_host(world, state="non_operational")
    assert await claim(world, host)
    assert (await world.get("host", host))["state"] == "non_operational"


@pytest.mark.parametrize("epoch", [0, 2])
async def test_a_host_of_another_epoch_is_not_fenced(world: World, epoch: int) -> None:
    assert not await claim(world, await silent_host(world), epoch=epoch)


async def test_a_claim_that_was_refused_leaves_no_trace(world: World) -> None:
    host = await silent_host(world)
    assert not await claim(world, host, epoch=7)
    assert await claims(world) == []
    assert (await world.get("host", host))["state"] == "non_responsive"


async def test_a_spent_budget_refuses_the_next_host_until_the_window_has_passed(
    world: World,
) -> None:
    first, second = await silent_host(world, "h1"), await silent_host(world, "h2")
    assert await claim(world, first)
    assert not await claim(world, second)
    await limits(world, fences_max=2)
    assert await claim(world, second)
    await limits(world, fences_max=1)
    await world.watch(299)
    assert not await claim(world, second)
    await world.watch(2)
    assert await claim(world, await silent_host(world, "h3"))


@pytest.mark.parametrize("jump_s", [-3600, 3600])
async def test_a_clock_that_jumps_neither_ends_nor_prolongs_the_window(
    world: World, jump_s: float
) -> None:
    first, second = await silent_host(world, "h1"), await silent_host(world, "h2")
    assert await claim(world, first)
    world.later(jump_s)
    await world.watch(299)
    assert not await claim(world, second)
    await world.watch(2)
    assert await claim(world, second)


async def test_a_window_passes_on_the_clock_of_any_monitor_that_has_seen_the_fence(
    world: World,
) -> None:
    first, second = await silent_host(world, "h1"), await silent_host(world, "h2")
    assert await claim(world, first)
    await world.watch(200)
    await world.monitor()
    await world.observe(second, 9, verdict="non_responsive", heard_sequence=1)
    await world.watch(100)
    assert not await claim(world, second)
    await world.watch(1)
    assert await claim(world, second)


async def test_time_in_which_nobody_watches_ends_no_window(world: World) -> None:
    first, second = await silent_host(world, "h1"), await silent_host(world, "h2")
    assert await claim(world, first)
    world.later(3600)
    world.watched_ms += 3600_000
    assert not await claim(world, second)
    await world.watch(301)
    assert await claim(world, second)


async def test_a_budget_of_nothing_fences_nobody(world: World) -> None:
    await limits(world, fences_max=0)
    assert not await claim(world, await silent_host(world))


async def test_a_repeated_claim_counts_once_but_where_it_was_repeated(world: World) -> None:
    first, second = await silent_host(world, "h1"), await silent_host(world, "h2")
    operation = await world.operation()
    assert await claim(world, first, operation)
    world.later(299)
    await world.watch(299)
    assert await claim(world, first, operation)
    assert [row["claimed_at"] for row in await claims(world)] == [world.now]
    await world.watch(299)
    assert not await claim(world, second)


async def test_one_host_fenced_by_two_operations_spends_the_budget_once(world: World) -> None:
    host = await silent_host(world)
    assert await claim(world, host)
    assert await claim(world, host)
    assert len(await claims(world)) == 2
    other = await silent_host(world, "h2")
    counted = await world.do(fence_budgets.recent_claims, WINDOW_S, other)
    assert {row["host_id"] for row in counted} == {host}
    assert await world.do(fence_budgets.recent_claims, WINDOW_S, host) == []


@pytest.mark.parametrize(("budget", "hosts"), [(1, 2), (2, 5)])
async def test_concurrent_fences_of_different_hosts_never_exceed_the_budget(
    world: World, budget: int, hosts: int
) -> None:
    silent = [await silent_host(world, f"h{n}") for n in range(hosts)]
    owners = [await world.operation() for _ in silent]
    known = Judged(HEARD, ("m1",))
    terms: Row = {"known": known, "now": world.now}
    await limits(world, fences_max=budget)

    def fence(host: UUID, owner: UUID) -> Any:
        statement = partial(fence_claims.claim_fence, host_id=host, epoch=1, operation_id=owner)
        return partial(statement, **terms)

    won = await world.together(*map(fence, silent, owners))
    assert sum(won) == budget
    states = [(await world.get("host", host))["state"] for host in silent]
    assert [state == "fencing" for state in states] == won


async def issue(world: World, host: UUID, incident: UUID, epoch: int = 1) -> bool:
    row: Row = {"id": new_id(), "host_id": host, "epoch": epoch, "incident_id": incident}
    row |= {"evidence": [{"device": "bmc1"}], "digest": "d", "issued_at": world.now}
    return await world.do(incidents.issue_certificate, row, heard=HEARD, why="reads off")


async def test_a_certificate_brings_its_host_down_and_can_be_read_back(world: World) -> None:
    host = await silent_host(world)
    incident = await world.incident(host)
    assert await issue(world, host, incident)
    row = await world.get("host", host)
    assert (row["state"], row["state_reason"]) == ("down", "reads off")
    valid = await world.do(incidents.valid_certificate, host, 1)
    assert valid is not None
    assert (valid["evidence"], valid["issued_at"]) == ([{"device": "bmc1"}], world.now)
    assert await world.do(incidents.valid_certificate, host, 2) is None


async def test_no_certificate_is_issued_once_its_incident_is_closed(world: World) -> None:
    host = await silent_host(world)
    incident = await world.incident(host)
    assert await world.do(incidents.close, incident, "cancelled", world.now)
    assert not await issue(world, host, incident)
    assert (await world.get("host", host))["state"] == "non_responsive"


async def test_no_certificate_is_issued_for_a_host_that_was_heard(world: World) -> None:
    host = await silent_host(world)
    incident = await world.incident(host)
    await world.observe(host, 2)
    assert not await issue(world, host, incident)
    assert (await world.get("host", host))["state"] == "non_responsive"


async def test_no_certificate_is_issued_for_another_epoch_or_a_living_host(world: World) -> None:
    host = await silent_host(world)
    incident = await world.incident(host)
    assert not await issue(world, host, incident, epoch=2)
    await world.put("host", host, state="up")
    assert not await issue(world, host, incident)


async def test_a_certificate_is_voided_once_and_keeps_the_reason(world: World) -> None:
    host = await world.host()
    await world.certificate(host)
    assert await world.do(incidents.void_certificate, host, 1, "r" * 2000, world.now)
    assert not await world.do(incidents.void_certificate, host, 1, "again", world.now)
    assert await world.do(incidents.valid_certificate, host, 1) is None
    opened = await world.do(incidents.find_open, host, 1)
    assert opened is not None
    (void,) = await world.do(incidents.certificates_of, opened["id"])
    assert (void["state"], void["void_reason"]) == ("void", "r" * 1024)


async def test_an_incident_is_closed_once_and_then_another_may_open(world: World) -> None:
    host = await world.host()
    first = await world.incident(host)
    assert await world.do(incidents.close, first, "recovered", world.now)
    assert not await world.do(incidents.close, first, "recovered", world.now)
    second = await world.incident(host)
    found = await world.do(incidents.find_open, host, 1)
    assert found is not None
    assert found["id"] == second
    rows, _more = await world.do(pages.page, pages.incidents(), Slice(10))
    assert [row["id"] for row in rows] == [second, first]


async def test_the_first_time_a_phase_was_entered_is_the_one_that_counts(world: World) -> None:
    incident = await world.incident(await world.host("h7"))
    await world.do(incidents.enter_phase, incident, "prove", world.now)
    await world.do(incidents.enter_phase, incident, "prove", world.later(5))
    row = await world.do(incidents.get, incident)
    assert row is not None
    assert (row["phase"], row["phases"]) == ("prove", {"prove": START.isoformat()})
    assert row["host_name"] == "h7"


async def test_reports_of_a_known_failure_are_counted_without_loss(world: World) -> None:
    incident = await world.incident(await world.host())

    async def again(connection: AsyncConnection) -> None:
        await incidents.reported_again(connection, incident)

    await world.together(*[again] * 6)
    row = await world.do(incidents.get, incident)
    assert row is not None
    assert row["reports"] == 7

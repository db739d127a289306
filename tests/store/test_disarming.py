"""How a cluster is disarmed: what is kept of it, and what each mode lets a statement do (I8)."""

from typing import Any
from uuid import UUID

import pytest

from domain.disarming import DISARMED, FAILURE_IGNORED, DisarmMode
from domain.errors import Refused, Superseded
from domain.inventory import HostState
from domain.profiles import Profile
from domain.storm import HoldReason, why_held
from engine.actions.clusters import ArmCluster
from engine.actions.hosts import RecoverHost
from engine.closing import LOOK_AGAIN
from engine.queries.inventory import GetCluster
from engine.records.runs import ref_of
from engine.records.watching import WatchRecords
from store import locks, operations, runs
from tests.store.engine_room import POLICY, Engine, columns
from tests.store.test_fencing import claim, silent_host
from tests.store.test_recovery_records import Death, assess_order
from tests.store.test_run_records import order, start_of

pytestmark = pytest.mark.store

MODES = list(DisarmMode)


async def disarm(engine: Engine, mode: DisarmMode, **context: Any) -> None:
    wish = ArmCluster(cluster_id=engine.world.cluster_id, armed=False, mode=mode)
    await engine.act(wish, **context)


async def arm(engine: Engine) -> None:
    await engine.act(ArmCluster(cluster_id=engine.world.cluster_id, armed=True))


def report(host: UUID) -> RecoverHost:
    return RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")


@pytest.mark.parametrize("mode", MODES)
async def test_who_disarmed_it_when_why_and_how_is_kept_until_it_is_armed(
    engine: Engine, mode: DisarmMode
) -> None:
    world = engine.world
    await disarm(engine, mode, reason="new switches")
    view = await engine.backend.run_query(GetCluster(cluster_id=world.cluster_id))
    assert (view.armed, view.disarm_mode) == (False, mode)
    assert (view.disarmed_by, view.disarm_reason) == ("ann", "new switches")
    assert view.disarmed_at == world.now
    (event,) = [e for e in await engine.rows("event") if e["type"] == "cluster.arm.done"]
    assert event["before"] == {"armed": True, "disarm_mode": None}
    assert event["after"] == {"armed": False, "disarm_mode": mode}
    await arm(engine)
    view = await engine.backend.run_query(GetCluster(cluster_id=world.cluster_id))
    told = (view.disarm_mode, view.disarmed_by, view.disarm_reason, view.disarmed_at)
    assert (view.armed, *told) == (True, None, None, None, None)


async def test_a_held_fence_says_who_disarmed_the_cluster_and_why(engine: Engine) -> None:
    death = await Death(engine, await engine.world.host("h1")).build()
    await disarm(engine, DisarmMode.FREEZE, reason="new switches")
    facts = await engine.recoveries.fence_facts(await assess_order(death), ())
    (held,) = [one for one in why_held(facts, POLICY) if one.reason is HoldReason.DISARMED]
    assert held.detail == (
        "automatic action is disarmed: freeze, by ann, since 2026-01-02 03:04 UTC (new switches)"
    )


@pytest.mark.parametrize(("mode", "cut"), [("hold", False), ("freeze", False), ("ignore", True)])
async def test_only_a_cluster_that_ignores_failures_lets_known_recoveries_fence(
    engine: Engine, mode: str, cut: bool
) -> None:
    host = await silent_host(engine.world)
    await disarm(engine, DisarmMode(mode))
    assert await claim(engine.world, host) is cut


async def test_what_is_ignored_opens_no_incident_and_is_noted_once(engine: Engine) -> None:
    world, watch = engine.world, WatchRecords(engine.world.database, engine.world.clock)
    host = await world.host("h1", state="connecting")
    await disarm(engine, DisarmMode.IGNORE)
    error = await engine.refusal(report(host))
    assert error.code == FAILURE_IGNORED
    for _ in range(3):
        (seen,) = await watch.watched(Profile.BALANCED)
        await watch.ignored(seen, "silent for 8 polls; failures are ignored now")
    assert (await world.get("host", host))["state"] == HostState.NON_RESPONSIVE
    told = [e for e in await engine.rows("event") if e["type"] == "host.silent"]
    assert [e["data"]["why"] for e in told] == ["silent for 8 polls; failures are ignored now"]
    assert await engine.rows("incident") == []


async def test_a_host_that_failed_while_ignored_is_reported_anew_or_is_back_by_itself(
    engine: Engine,
) -> None:
    world, watch = engine.world, WatchRecords(engine.world.database, engine.world.clock)
    dead, back = [await world.host(name, state="connecting") for name in ("h1", "h2")]
    await disarm(engine, DisarmMode.IGNORE)
    for seen in await watch.watched(Profile.BALANCED):
        await watch.ignored(seen, "silent")
    await arm(engine)
    await engine.act(report(dead))
    assert columns(await engine.rows("incident"), "host_id") == [dead]
    (seen,) = [one for one in await watch.watched(Profile.BALANCED) if one.id == back]
    assert not await watch.sign_of_life(seen, 1)
    assert (await world.get("host", back))["state"] == HostState.UP


@pytest.mark.parametrize("mode", [DisarmMode.HOLD, DisarmMode.FREEZE])
async def test_a_failure_is_taken_while_it_is_held_or_frozen(
    engine: Engine, mode: DisarmMode
) -> None:
    host = await engine.world.host("h1", state="connecting")
    await disarm(engine, mode)
    await engine.act(report(host))
    assert len(await engine.rows("incident")) == 1


async def test_recoveries_that_wait_are_not_let_go_by_ignoring_failures(engine: Engine) -> None:
    world = engine.world
    await disarm(engine, DisarmMode.HOLD)
    await world.incident(await world.host("h1"))
    ignore = ArmCluster(cluster_id=world.cluster_id, armed=False, mode=DisarmMode.IGNORE)
    error = await engine.refusal(ignore)
    assert (error.code, "the recovery of h1 waits" in error.detail) == ("INCIDENTS_WAIT", True)
    await disarm(engine, DisarmMode.FREEZE)
    assert (await engine.refusal(ignore)).code == "INCIDENTS_WAIT"
    await arm(engine)
    await engine.act(ignore)
    await engine.act(ignore)


async def restart_of(engine: Engine) -> tuple[UUID, Any]:
    """A VM of a dead host whose place elsewhere is reserved: its run, and that as steps have it."""
    world = engine.world
    dead, target = await world.host("dead"), await world.host("h2")
    incident = await world.incident(dead)
    run = await world.placed(await world.vm(), target, incident_id=incident)
    return run["id"], await world.do(ref_of, run)


@pytest.mark.parametrize(("mode", "starts"), [("hold", True), ("freeze", False), ("ignore", True)])
async def test_a_frozen_cluster_starts_no_vm_of_a_recovery(
    engine: Engine, mode: str, starts: bool
) -> None:
    run_id, ref = await restart_of(engine)
    await disarm(engine, DisarmMode(mode))
    if starts:
        await engine.runs.begin_start(ref)
        return
    with pytest.raises(Refused) as refused:
        await engine.runs.begin_start(ref)
    assert refused.value.code == DISARMED
    assert (await engine.world.run(run_id))["state"] == "placed"
    await arm(engine)
    await engine.runs.begin_start(ref)


async def test_a_start_that_has_begun_goes_on_while_frozen(engine: Engine) -> None:
    _run_id, ref = await restart_of(engine)
    await engine.runs.begin_start(ref)
    await disarm(engine, DisarmMode.FREEZE)
    await engine.runs.begin_start(ref)
    await engine.runs.started(ref)


async def test_a_run_that_was_taken_over_is_superseded_and_not_frozen(engine: Engine) -> None:
    run_id, ref = await restart_of(engine)
    await disarm(engine, DisarmMode.FREEZE)
    assert await engine.world.do(runs.end, run_id, "stopped", engine.world.now)
    with pytest.raises(Superseded):
        await engine.runs.begin_start(ref)


async def test_a_frozen_cluster_gives_a_recovery_no_place_and_a_person_any(engine: Engine) -> None:
    world = engine.world
    incident = await world.incident(await world.host("dead", state="down"))
    await world.host("h2")
    await disarm(engine, DisarmMode.FREEZE)
    vm = await world.vm()
    start = await start_of(engine, vm)
    with pytest.raises(Refused) as refused:
        await engine.runs.place(order(vm, start, incident_id=incident))
    assert refused.value.code == DISARMED
    assert columns(await engine.rows("host"), "memory_reserved_mib") == [0, 0]
    assert (await engine.runs.place(order(vm, start))).run is not None
    assert await world.do(locks.holds, "vm", vm, start, 1)


async def test_arming_wakes_what_waits_for_it_and_nothing_else(engine: Engine) -> None:
    world = engine.world
    await disarm(engine, DisarmMode.HOLD)
    asleep = [await world.operation(kind=kind, state="running") for kind in ("host.recover", "x")]
    for operation in asleep:
        await world.do(operations.wait, operation, DISARMED, "disarmed", world.now)
    other = await world.operation(state="running")
    await world.do(operations.wait, other, "NO_ROOM", "no room", world.now)
    await arm(engine)
    told = [row for row in await engine.rows("outbox") if row["signal"] == LOOK_AGAIN]
    assert sorted(columns(told, "operation_id")) == sorted(asleep)

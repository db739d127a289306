"""Closed incidents are summed up: times, VMs in time, power cuts, what was waited for."""

from datetime import timedelta
from uuid import UUID

import pytest

from domain.explain import Question, Rule
from domain.inventory import RunState
from domain.storm import HoldReason
from engine.queries.incident_stats import IncidentStats, IncidentStatsView
from store import incident_stats, incidents
from store.ids import new_id
from store.rows import Row, inserted
from store.schema_ha import decision, fence_claim, vm_run
from tests.store.engine_room import Engine
from tests.store.test_queries import statements

pytestmark = pytest.mark.store


async def asked(engine: Engine, **filters: object) -> IncidentStatsView:
    query = IncidentStats.model_validate(filters)
    view: IncidentStatsView = await engine.backend.run_query(query)
    return view


async def ended(
    engine: Engine, host: UUID, outcome: str = "recovered", epoch: int = 1, **began_s: float
) -> UUID:
    """A closed incident that opened 2 s after the host's last answer; phases by when they began."""
    world = engine.world
    incident = await world.incident(host, epoch)
    start = world.now - timedelta(seconds=2)
    phases = {p: (start + timedelta(seconds=s)).isoformat() for p, s in began_s.items()}
    await world.put("incident", incident, phases=phases, last_answer_at=start)
    await world.do(incidents.close, incident, outcome, world.now + timedelta(seconds=60))
    return incident


async def decided(engine: Engine, incident: UUID, subject: UUID, **values: object) -> None:
    row: Row = {"id": new_id(), "incident_id": incident, "subject_type": "vm", "times": 1}
    row |= {"subject_id": subject, "subject_name": "x", "why": "because", "inputs": {}}
    row |= {"rejected": [], "rejected_more": 0, "rule": Rule.WANTED_AND_PROTECTED}
    row |= {"first_at": engine.world.now, "last_at": engine.world.now}
    await engine.world.do(inserted, decision, row | values)


async def came_back(engine: Engine, incident: UUID, vm: UUID, host: UUID, after_s: float) -> None:
    """The VM was to come back through an incident, and ran so long after the last answer."""
    await decided(engine, incident, vm, question=Question.VM_FATE, chosen="restart")
    run = await engine.world.running(vm, host)
    at = engine.world.now + timedelta(seconds=after_s - 2)
    await engine.world.put("vm_run", run["id"], incident_id=incident, started_at=at)


async def test_phases_and_totals_are_measured_from_the_last_answer(engine: Engine) -> None:
    host = await engine.world.host()
    await ended(engine, host, detect=0, decide=2, prove=2.5, place=3, start=3.5, ready=6, done=7)
    await ended(engine, host, "returned", detect=0, decide=2)
    view = await asked(engine)
    assert (view.incidents, view.outcomes) == (2, {"recovered": 1, "returned": 1})
    assert {name: each.p50_s for name, each in view.phases.items()} == {
        "detect": 2.0,
        "decide": 0.5,
        "prove": 0.5,
        "place": 0.5,
        "start": 2.5,
        "ready": 1.0,
    }
    assert (view.total.count, view.total.worst_s, view.few) == (1, 7.0, True)


async def test_vms_are_told_by_whether_they_were_back_within_their_budgets(engine: Engine) -> None:
    world = engine.world
    dead, alive = await world.host("dead"), await world.host("alive")
    incident = await ended(engine, dead, detect=0, decide=2, done=20)
    for name, budget_s, after_s in (("db", 10, 9.5), ("web", 10, 12.0), ("log", None, 4.0)):
        vm = await world.vm(name, protected=True, budget_s=budget_s)
        await came_back(engine, incident, vm, alive, after_s)
    lost = await world.vm("lost", protected=True, budget_s=30)
    await decided(engine, incident, lost, question=Question.VM_FATE, chosen="restart")
    left = await world.vm("scratch", budget_s=30)
    await decided(engine, incident, left, question=Question.VM_FATE, chosen="leave down")
    view = await asked(engine)
    found = view.budgets
    assert (found.vms, found.back, found.not_back) == (4, 3, 1)
    assert (found.within, found.over, found.without_budget) == (1, 2, 1)
    assert (view.vms.p50_s, view.vms.worst_s) == (9.5, 12.0)


async def test_a_vm_that_needed_two_starts_is_one_vm_from_when_it_first_ran(engine: Engine) -> None:
    world = engine.world
    dead, alive = await world.host("dead"), await world.host("alive")
    incident = await ended(engine, dead, detect=0, decide=2, done=20)
    vm = await world.vm("db", protected=True)
    await came_back(engine, incident, vm, alive, 5.0)
    (first,) = await engine.rows("vm_run")
    await world.put("vm_run", first["id"], state=RunState.ENDED, active=None)
    again = first | {"id": new_id(), "generation": first["generation"] + 1}
    later = first["started_at"] + timedelta(seconds=30)
    await world.do(inserted, vm_run, again | {"started_at": later})
    # What it rests on changed while the claim was repeated: two decisions, one fate.
    await decided(engine, incident, vm, question=Question.VM_FATE, chosen="restart", why="again")
    view = await asked(engine)
    assert (view.budgets.vms, view.vms.count, view.vms.worst_s) == (1, 1, 5.0)


async def test_power_cuts_count_for_the_incident_in_which_they_were_claimed(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host()
    await ended(engine, host, detect=0, decide=2)
    row: Row = {"host_id": host, "epoch": 1, "cluster_id": world.cluster_id}
    for at_s in (-10, 5, 61):
        at = world.now + timedelta(seconds=at_s)
        claim = row | {"id": new_id(), "operation_id": await world.operation(host)}
        await world.do(inserted, fence_claim, claim | {"claimed_at": at})
    assert (await asked(engine)).fences == 1


async def test_what_was_waited_for_is_told_by_code(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    incident = await ended(engine, host, detect=0, decide=2)
    hold = {"question": Question.HOST_FATE, "chosen": "hold", "rule": Rule.GUARD_HOLDS}
    codes = {"held": [HoldReason.MANY_SILENT, HoldReason.VIEW_COLD]}
    lasting = {"last_at": world.now + timedelta(seconds=90)}
    await decided(engine, incident, host, **hold, inputs=codes, **lasting)
    await decided(engine, incident, host, **hold)  # of a release that kept no codes
    nowhere = {"question": Question.VM_PLACE, "chosen": "none", "rule": Rule.NO_HOST}
    await decided(engine, incident, await world.vm("big"), **nowhere)
    place = {"question": Question.VM_PLACE, "chosen": "h2", "rule": Rule.BEST_HOST}
    await decided(engine, incident, await world.vm("small"), **place)
    found = {one.code: (one.incidents, one.worst_s) for one in (await asked(engine)).waited}
    assert found == {
        "MANY_SILENT": (1, 90.0),
        "VIEW_COLD": (1, 90.0),
        "GUARD_HOLDS": (1, 0.0),
        "NO_HOST": (1, 0.0),
    }


async def test_only_closed_incidents_of_the_cluster_and_the_time_count(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    await ended(engine, host, detect=0, decide=2)
    await world.incident(host, 2)  # open
    now = world.now
    assert (await asked(engine, cluster_id=world.cluster_id)).incidents == 1
    assert (await asked(engine, cluster_id=new_id())).incidents == 0
    assert (await asked(engine, since=now)).incidents == 1
    assert (await asked(engine, since=now + timedelta(seconds=1))).incidents == 0
    old = await ended(engine, host, epoch=3, detect=0, decide=2)
    await world.put("incident", old, opened_at=now - timedelta(days=31))
    assert (await asked(engine)).incidents == 1
    assert (await asked(engine, since=now - timedelta(days=32))).incidents == 2


async def test_very_many_incidents_are_cut_off_at_the_oldest_that_fits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_stats, "INCIDENTS_MAX", 2)
    host = await engine.world.host()
    vm = await engine.world.vm()
    for days in (3, 2, 1):
        incident = await ended(engine, host, detect=0, decide=2)
        at = engine.world.now - timedelta(days=days)
        await engine.world.put("incident", incident, opened_at=at)
        await decided(engine, incident, vm, question=Question.VM_FATE, chosen="restart")
    view = await asked(engine)
    assert (view.incidents, view.cut_off, view.budgets.vms) == (2, True, 2)
    assert view.since == engine.world.now - timedelta(days=2)


async def test_a_report_is_three_statements_however_many_incidents_there_are(
    engine: Engine,
) -> None:
    host, vm = await engine.world.host(), await engine.world.vm()
    for _ in range(7):
        incident = await ended(engine, host, detect=0, decide=2)
        await decided(engine, incident, vm, question=Question.VM_FATE, chosen="restart")
    with statements(engine.world.database) as seen:
        assert (await asked(engine, cluster_id=engine.world.cluster_id)).incidents == 7
    assert len(seen) == 3

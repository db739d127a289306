"""A VM that a host took with it while it was being moved counts in that host's incident."""

from uuid import UUID

import pytest

from engine.queries.incident_stats import IncidentStats, IncidentStatsView
from engine.queries.incidents import ExplainIncident, GetIncident
from engine.views import IncidentView
from engine.views_explained import DecisionView
from tests.workflow.bench import Bench, relaying
from tests.workflow.migrations import under_way

pytestmark = pytest.mark.workflow


async def lost(engine: Bench, *dead: str, protected: bool = True) -> None:
    """A VM moves from h1 to h2; some hosts lose their power, and are recovered one by one."""
    vm_id = await engine.add_vm("db", "h1", protected=protected)
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    for name in dead:
        engine.centre.hosts[name].lose_power()
    async with relaying(engine):  # what a step orders is told once, and a busy server is late
        for name in dead:
            await engine.ended(await engine.report(name))
        ended = await engine.ended(operation)
        assert ended["problem"]["code"] == "VM_LOST_IN_MIGRATION"
        await engine.idle()


async def incident_of(engine: Bench, host: str) -> IncidentView:
    rows = await engine.rows("incident")
    (incident_id,) = [row["id"] for row in rows if row["host_id"] == engine.hosts[host]]
    view: IncidentView = await engine.backend.run_query(GetIncident(incident_id=incident_id))
    return view


async def decisions_on(
    engine: Bench, incident_id: UUID, vm: str
) -> tuple[list[DecisionView], list[DecisionView]]:
    """What was decided on the VM's fate, and on its place, in the order in which it was.

    A recovery that claims its host's VMs only now finds this one lost, and takes its start over.
    """
    told = await engine.backend.run_query(ExplainIncident(incident_id=incident_id))
    mine = [one for one in told.decisions if one.subject_id == engine.vms[vm]]
    fates, places = (
        [one for one in mine if one.question == question] for question in ("vm_fate", "vm_place")
    )
    return fates, places


async def stats(engine: Bench) -> IncidentStatsView:
    view: IncidentStatsView = await engine.backend.run_query(IncidentStats())
    return view


async def test_a_vm_lost_on_its_way_is_told_with_its_new_host_reason_and_time(
    engine: Bench,
) -> None:
    await lost(engine, "h1")
    incident = await incident_of(engine, "h1")
    (vm,) = incident.vms
    assert (vm.name, vm.host_before, vm.host_after) == ("db", "h1", engine.copies("db")[0])
    assert vm.recovery_s is not None
    assert vm.recovery_s > 0
    fates, places = await decisions_on(engine, incident.id, "db")
    fate, place = fates[0], places[-1]
    assert (fate.chosen, fate.inputs["run_state"]) == ("restart", "migrating")
    assert fate.why.endswith("it was on its way from h1 to h2")
    assert place.chosen == vm.host_after
    found = await stats(engine)
    assert (found.budgets.vms, found.budgets.back) == (1, 1)
    assert found.vms.worst_s == pytest.approx(vm.recovery_s, abs=0.01)
    assert await engine.broken() == []


async def test_an_unprotected_vm_lost_on_its_way_is_told_to_stay_down(engine: Bench) -> None:
    await lost(engine, "h1", protected=False)
    incident = await incident_of(engine, "h1")
    assert [(vm.name, vm.host_after) for vm in incident.vms] == [("db", None)]
    fates, places = await decisions_on(engine, incident.id, "db")
    assert ({fate.chosen for fate in fates}, places) == ({"leave down"}, [])
    assert (await stats(engine)).budgets.vms == 0
    assert engine.copies("db") == []


async def test_a_vm_that_two_dead_hosts_took_counts_once_where_it_was_proven_last(
    engine: Bench,
) -> None:
    await lost(engine, "h1", "h2")
    assert (await incident_of(engine, "h1")).vms == ()
    last = await incident_of(engine, "h2")
    assert [(vm.name, vm.host_after) for vm in last.vms] == [("db", "h3")]
    found = await stats(engine)
    assert (found.incidents, found.budgets.vms, found.budgets.back) == (2, 1, 1)


async def test_a_vm_that_ends_on_its_way_between_living_hosts_counts_in_no_incident(
    engine: Bench,
) -> None:
    vm_id = await engine.add_vm("db", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.migrate("db", "h2")
    await under_way(engine, "h1", vm_id)
    move = engine.centre.hosts["h1"].moves[vm_id]
    move._switch()  # type: ignore[attr-defined]
    move._confirm()  # type: ignore[attr-defined]
    del engine.centre.hosts["h2"].domains[vm_id]
    async with relaying(engine):
        assert (await engine.ended(operation))["problem"]["code"] == "VM_LOST_IN_MIGRATION"
        await engine.idle()
    (start,) = await engine.children_of(operation, "vm.start")
    assert (start["incident_id"], len(engine.copies("db"))) == (None, 1)
    assert await engine.rows("incident") == []

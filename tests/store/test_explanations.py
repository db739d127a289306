"""Why decisions came out as they did is kept, and can be asked for."""

from datetime import timedelta
from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from activities.recovery import Known
from domain.explain import Explanation, Question, Rejected, Rule
from domain.recovery import Decision, Move
from engine.queries.incidents import ExplainIncident
from engine.views_explained import DecisionView, ExplanationView
from tests.store.engine_room import Engine
from tests.store.test_fence_records import certificate_order, dying
from tests.store.test_recovery_records import Death, assess_order
from tests.store.world import START

pytestmark = pytest.mark.store


def held(why: str, **inputs: int) -> Explanation:
    return Explanation(
        question=Question.HOST_FATE,
        chosen="hold",
        rule=Rule.GUARD_HOLDS,
        why=why,
        inputs=dict(inputs),
        rejected=(Rejected(option="fence", why=why),),
    )


async def told(engine: Engine, incident_id: UUID) -> ExplanationView:
    view: ExplanationView = await engine.backend.run_query(ExplainIncident(incident_id=incident_id))
    return view


async def answers(engine: Engine, death: Death, question: Question) -> dict[str, DecisionView]:
    """The decisions on one question, by the name of what they are about."""
    kept = (await told(engine, death.incident)).decisions
    return {one.subject_name: one for one in kept if one.question == question}


async def judged(engine: Engine, death: Death, after_s: float, explanation: Explanation) -> None:
    decision = Decision(move=Move.HOLD, why=explanation.why)
    at = START + timedelta(seconds=after_s)
    known = Known(at=at, heard={}, words=0)
    await engine.recoveries.note_decision(await assess_order(death), decision, explanation, known)


async def test_a_wait_of_days_is_one_decision_with_its_newest_inputs(engine: Engine) -> None:
    death = await Death(engine, await engine.world.host()).build()
    await judged(engine, death, 0, held("disarmed", hosts_silent=1))
    await judged(engine, death, 60, held("disarmed", hosts_silent=2))
    (kept,) = (await told(engine, death.incident)).decisions
    assert (kept.times, kept.inputs) == (2, {"hosts_silent": 2})
    assert kept.last_at - kept.first_at == timedelta(seconds=60)


async def test_a_decision_that_comes_back_after_another_is_a_new_one(engine: Engine) -> None:
    death = await Death(engine, await engine.world.host()).build()
    for after_s, why in enumerate(("disarmed", "budget spent", "disarmed")):
        await judged(engine, death, after_s, held(why))
    view = await told(engine, death.incident)
    assert [kept.why for kept in view.decisions] == ["disarmed", "budget spent", "disarmed"]
    assert view.decisions[0].rejected == (Rejected(option="fence", why="disarmed"),)


async def test_each_vm_of_a_dead_host_is_told_where_it_goes_and_why_not_elsewhere(
    engine: Engine,
) -> None:
    world = engine.world
    dead = await world.host("h1", memory_mib=200_000)
    await world.host("h2", memory_mib=4096)
    await world.host("h3", memory_mib=2048)
    for name, memory_mib in (("db", 1024), ("huge", 100_000)):
        await world.running(await world.vm(name, protected=True, memory_mib=memory_mib), dead)
    death = await Death(engine, dead).build()
    await death.claim()
    places = await answers(engine, death, Question.VM_PLACE)
    assert (places["db"].chosen, places["db"].rule) == ("h2", "BEST_HOST")
    assert [one.option for one in places["db"].rejected] == ["h3"]
    assert (places["huge"].chosen, places["huge"].rule) == ("none", "NO_HOST")
    assert {one.option for one in places["huge"].rejected} == {"h2", "h3"}


async def test_claiming_twice_tells_each_place_once(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("h1")
    await world.host("h2")
    await world.running(await world.vm("db", protected=True), dead)
    death = await Death(engine, dead).build()
    await death.claim()
    await death.claim()
    kept = (await told(engine, death.incident)).decisions
    assert [(one.question, one.times) for one in kept] == [("vm_fate", 1), ("vm_place", 1)]


async def test_each_vm_of_a_dead_host_is_told_whether_it_comes_back_and_when(
    engine: Engine,
) -> None:
    world = engine.world
    dead = await world.host("h1", memory_mib=8192)
    await world.host("h2", memory_mib=8192)
    db = await world.vm("db", protected=True)
    app = await world.vm("app", protected=True, priority=99, depends_on=(db,))
    for vm in (app, db, await world.vm("scratch")):
        await world.running(vm, dead)
    unwanted = await world.vm("old", protected=True)
    await world.running(unwanted, dead)
    await world.put("vm", unwanted, wanted=False)
    death = await Death(engine, dead).build()
    await death.claim()
    fates = await answers(engine, death, Question.VM_FATE)
    assert {name: (fate.chosen, fate.rule) for name, fate in fates.items()} == {
        "old": ("leave down", "NOT_WANTED"),
        "scratch": ("leave down", "NOT_PROTECTED"),
        "db": ("restart", "WANTED_AND_PROTECTED"),
        "app": ("restart", "WANTED_AND_PROTECTED"),
    }
    assert fates["app"].why.endswith("it starts once db is ready")
    turns = {name: (fate.inputs["turn"], fate.inputs["turns"]) for name, fate in fates.items()}
    assert turns == {"old": (0, 2), "scratch": (0, 2), "db": (1, 2), "app": (2, 2)}


async def test_a_vm_that_waits_for_room_is_told_once_and_then_where_it_went(
    engine: Engine,
) -> None:
    world = engine.world
    dead = await world.host("h1", memory_mib=8192)
    small = await world.host("h2", memory_mib=1024)
    vm = await world.vm("db", protected=True, memory_mib=4096)
    await world.running(vm, dead)
    death = await Death(engine, dead).build()
    (restart,) = (await death.claim()).restarts
    order = PlaceOrder(
        operation_id=restart.operation_id,
        vm_id=vm,
        host_id=None,
        licence_id=restart.licence_id,
        incident_id=death.incident,
    )
    for _ in range(2):
        assert (await engine.runs.place(order)).no_room
    await world.put("host", small, memory_mib=8192)
    assert (await engine.runs.place(order)).run
    kept = [
        one
        for one in (await told(engine, death.incident)).decisions
        if one.question == Question.VM_PLACE
    ]
    assert [(one.chosen, one.times) for one in kept] == [("none", 3), ("h2", 1)]


async def test_a_certificate_says_what_each_channel_said(engine: Engine) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    await engine.fences.certify(order)
    await engine.fences.certify(order)
    (proof,) = (await told(engine, incident)).decisions
    assert (proof.question, proof.chosen, proof.times) == ("host_proof", "dead", 1)
    assert (proof.rule, proof.why) == ("EVERY_PROOF_AGREES", "proven off by bmc1")
    assert proof.inputs == {
        "certificate": 1,
        "grade": "power read back off",
        "evidence": [{"device": "bmc1", "verdict": "off", "took_s": 0.2}],
    }

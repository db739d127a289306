"""The rows of a recovery: votes, the one fence, the victims, the end."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from activities.recovery import (
    AssessOrder,
    ClaimVictimsOrder,
    FenceChildOrder,
    Known,
    ReportOrder,
)
from domain.errors import Refused
from domain.explain import Explanation, Question, Rule
from domain.operations import OperationState, Outcome
from domain.orders import RestartPlan
from domain.recovery import Decision, Move
from engine.actions.vms import StartVm, StopVm
from store import fence_claims, incidents, locks, observations, operations, runs
from store.judged import Judged
from store.rows import Row
from tests.store.engine_room import POLICY, Engine, columns
from tests.store.world import START

pytestmark = pytest.mark.store

TOLD = Explanation(
    question=Question.HOST_FATE, chosen="hold", rule=Rule.GUARD_HOLDS, why="because", inputs={}
)


def known(heard: dict[str, int], words: int = 0) -> Known:
    return Known(at=START, heard=heard, words=words, eyes=("m1", "m2"))


class Death:
    """A host that is proven dead, with the recovery that is to take its VMs."""

    def __init__(self, engine: Engine, host: UUID) -> None:
        self.engine = engine
        self.host = host

    async def build(self) -> "Death":
        """Issue the certificate, open the recovery, lock the host."""
        world = self.engine.world
        self.certificate = await world.certificate(self.host)
        (row,) = [r for r in await self.engine.rows("incident") if r["host_id"] == self.host]
        self.incident: UUID = row["id"]
        fields = {"kind": "host.recover", "target_type": "host", "priority": 1}
        self.operation = await world.operation(self.host, **fields, incident_id=self.incident)
        await world.take("host", self.host, self.operation)
        return self

    async def claim(self) -> RestartPlan:
        """Take the victims."""
        order = ClaimVictimsOrder(
            operation_id=self.operation,
            incident_id=self.incident,
            host=await self.engine.ref(self.host),
            certificate_id=self.certificate,
        )
        return await self.engine.recoveries.claim_victims(order)

    async def children(self) -> list[Row]:
        """The recovery's child operations."""
        return await self.engine.world.do(operations.children, self.operation)


async def test_protected_vms_are_placed_elsewhere_and_unprotected_ones_are_left_down(
    engine: Engine,
) -> None:
    world = engine.world
    dead, alive = await world.host("dead"), await world.host("alive")
    shown = await world.vm("db", protected=True)
    hidden = await world.vm("scratch")
    for vm in (shown, hidden):
        await world.running(vm, dead)
    death = await Death(engine, dead).build()
    plan = await death.claim()
    (restart,) = plan.restarts
    assert (restart.vm_name, plan.left_down) == ("db", ("scratch",))
    assert restart.run is not None
    assert (restart.run.host_id, restart.run.generation) == (alive, 2)
    assert restart.licence_id == death.certificate
    assert await world.do(runs.begin_start, restart.run.run_id, restart.operation_id)
    assert await world.do(runs.active_run, hidden) is None
    assert (await world.get("host", dead))["memory_reserved_mib"] == 0
    (child,) = await death.children()
    assert (child["priority"], child["incident_id"], child["workflow"]) == (
        *(2, death.incident),
        "StartVm",
    )


async def test_claiming_again_gives_the_same_plan_and_changes_nothing(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    for name in ("a", "b"):
        await world.running(await world.vm(name, protected=True), dead)
    death = await Death(engine, dead).build()
    first = await death.claim()
    after = await engine.everything()
    assert await death.claim() == first
    assert await engine.everything() == after


async def test_claiming_many_times_at_once_opens_each_child_once(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    for name in ("a", "b"):
        await world.running(await world.vm(name, protected=True), dead)
    death = await Death(engine, dead).build()
    plans = await asyncio.gather(*(death.claim() for _ in range(4)))
    assert [plan == plans[0] for plan in plans] == [True] * 4
    assert len(await death.children()) == 2


async def test_a_vm_is_restarted_after_those_it_depends_on_and_then_by_priority(
    engine: Engine,
) -> None:
    world = engine.world
    dead = await world.host("dead", memory_mib=4096)
    await world.host("alive", memory_mib=4096)
    slow = await world.vm("db", protected=True, priority=1)
    app = await world.vm("app", protected=True, priority=99, depends_on=(slow,))
    fast = await world.vm("web", protected=True, priority=50)
    elsewhere = await world.vm("dns", protected=True)
    mail = await world.vm("mail", protected=True, priority=40, depends_on=(elsewhere,))
    for vm in (app, fast, mail, slow):
        await world.running(vm, dead)
    plan = await (await Death(engine, dead).build()).claim()
    assert [restart.vm_name for restart in plan.restarts] == ["web", "mail", "db", "app"]
    assert [restart.depends_on for restart in plan.restarts] == [(), (), (), (slow,)]


async def test_a_protected_vm_without_room_waits_as_a_child_of_its_own(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead", memory_mib=2000)
    await world.host("alive", memory_mib=1000)
    big = await world.vm("big", memory_mib=900, protected=True, priority=90)
    small = await world.vm("small", memory_mib=200, protected=True)
    for vm in (small, big):
        await world.running(vm, dead)
    plan = await (await Death(engine, dead).build()).claim()
    placed = {restart.vm_name: restart.run is not None for restart in plan.restarts}
    assert placed == {"big": True, "small": False}
    assert {row["entity_id"] for row in await engine.rows("entity_lock")} == {big, small}


async def test_the_dead_hosts_lock_is_free_once_its_vms_are_claimed(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    death = await Death(engine, dead).build()
    plan = await death.claim()
    assert (plan.restarts, plan.left_down) == ((), ())
    assert await engine.rows("entity_lock") == []


@pytest.mark.parametrize("protected", [True, False])
async def test_an_operation_that_holds_a_victims_lock_is_superseded(
    engine: Engine, protected: bool
) -> None:
    world = engine.world
    dead = await world.host("dead")
    vm = await world.vm("db", protected=protected)
    receipt = await engine.act(StartVm(vm_id=vm))
    await world.placed(vm, dead, operation_id=receipt.operation_id)
    await world.host("alive")
    plan = await (await Death(engine, dead).build()).claim()
    loser = await world.do(operations.get, receipt.operation_id)
    assert loser is not None
    assert (loser["state"], loser["reason_code"]) == ("cancelled", "superseded")
    assert loser["problem"]["code"] == "SUPERSEDED"
    held = await world.do(locks.holder, "vm", vm)
    owners = [] if held is None else [held.operation_id]
    assert owners == [restart.operation_id for restart in plan.restarts]
    assert len(owners) == int(protected)
    assert "vm.start.cancelled" in columns(await engine.rows("event"), "type")


async def test_a_vm_that_a_person_was_stopping_is_not_restarted(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    vm = await world.vm("db", protected=True)
    run = await world.running(vm, dead)
    await engine.act(StopVm(vm_id=vm))
    assert await world.do(runs.begin_stop, run["id"])
    plan = await (await Death(engine, dead).build()).claim()
    assert (plan.restarts, plan.left_down) == ((), ("db",))


async def test_nothing_is_claimed_under_a_void_certificate(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    await world.running(await world.vm("db", protected=True), dead)
    death = await Death(engine, dead).build()
    await world.do(incidents.void_certificate, dead, 1, "alive", world.now)
    before = await engine.everything()
    with pytest.raises(Refused, match="CERTIFICATE_VOID"):
        await death.claim()
    assert await engine.everything() == before


async def test_a_second_death_takes_over_the_restart_of_the_first(engine: Engine) -> None:
    world = engine.world
    first = await world.host("first")
    await world.running(await world.vm("db", protected=True), first)
    second = await world.host("second", memory_mib=4096)
    one = await Death(engine, first).build()
    (earlier,) = (await one.claim()).restarts
    assert earlier.run is not None
    assert earlier.run.host_id == second
    third = await world.host("third")
    two = await Death(engine, second).build()
    (later,) = (await two.claim()).restarts
    assert later.run is not None
    assert (later.run.host_id, later.run.generation) == (third, 3)
    old = await world.do(operations.get, earlier.operation_id)
    assert old is not None
    assert old["state"] == "cancelled"
    assert (await one.claim()).restarts[0].run is None


async def test_the_fence_of_a_recovery_is_one_child_while_it_is_open(engine: Engine) -> None:
    death = await Death(engine, await engine.world.host()).build()
    order = FenceChildOrder(
        operation_id=death.operation,
        incident_id=death.incident,
        host=await engine.ref(death.host),
    )
    opened = await asyncio.gather(*(engine.recoveries.open_fence(order) for _ in range(4)))
    assert len(set(opened)) == 1
    failed = Outcome(operation_id=opened[0], state=OperationState.FAILED)
    await engine.operations.close(failed)
    assert await engine.recoveries.open_fence(order) != opened[0]
    assert columns(await death.children(), "kind") == ["host.fence", "host.fence"]


async def assess_order(death: Death) -> AssessOrder:
    return AssessOrder(
        operation_id=death.operation,
        incident_id=death.incident,
        host=await death.engine.ref(death.host),
        readings=(),
        policy=POLICY,
    )


async def test_a_fence_is_bound_to_what_was_heard_when_it_was_decided_on(engine: Engine) -> None:
    death = await Death(engine, await engine.world.host()).build()
    order = await assess_order(death)
    child = FenceChildOrder(**order.model_dump(exclude={"readings", "policy", "doubted"}))
    decision = Decision(move=Move.FENCE, why="because")
    await engine.recoveries.note_decision(order, decision, TOLD, known({"m1": 7}))
    fence = await engine.recoveries.open_fence(child)
    await engine.recoveries.note_decision(order, decision, TOLD, known({"m1": 9}))
    assert await engine.recoveries.open_fence(child) == fence
    (row,) = [row for row in await engine.rows("operation") if row["id"] == fence]
    assert row["params"]["heard"] == {"m1": 7}
    assert row["params"]["eyes"] == ["m1", "m2"]


async def test_votes_say_who_is_live_silent_and_warm(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    await world.monitor()
    await world.observe(host, 7, verdict="connecting", others_seen=2)
    (vote,) = await engine.recoveries.votes(await engine.ref(host), 2)
    assert (vote.sequence, vote.live, vote.silent, vote.others_seen) == (7, True, True, 2)
    assert (vote.warm, vote.heard_sequence, vote.assigned) == (True, None, True)
    world.later(3600)
    assert await engine.recoveries.votes(await engine.ref(host), 2) == (vote,)
    assert await world.do(observations.hold_gone, "m1", 7, world.now)
    (vote,) = await engine.recoveries.votes(await engine.ref(host), 2)
    assert (vote.live, vote.assigned) == (False, False)


async def test_votes_name_who_is_to_watch_a_host_though_it_has_not_looked_yet(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host()
    for name in ("m1", "m2"):
        await world.monitor(name)
    await world.observe(host, verdict="connecting")
    seen = {"watched_ms": int, "observations": [], "samples": [], "now": world.now}
    await world.do(observations.record_round, "m2", 1, warm=True, **seen)
    first, second = await engine.recoveries.votes(await engine.ref(host), 2)
    assert (first.monitor, first.sequence, first.assigned) == ("m1", 1, True)
    assert (second.monitor, second.sequence, second.assigned) == ("m2", None, True)
    assert (second.silent, second.warm, second.heard_sequence) == (True, False, None)


async def test_the_storm_guard_sees_the_switch_the_silence_and_the_spent_budget(
    engine: Engine,
) -> None:
    world = engine.world
    death = await Death(engine, await world.host("h1")).build()
    await world.put("host", death.host, state="non_responsive", own_host=True)
    other = await world.host("h2", state="non_responsive")
    await world.monitor()
    await world.observe(other, verdict="non_responsive")
    known = Judged({}, ("m1",))
    terms: dict[str, Any] = {"known": known, "now": world.now}
    assert await world.do(fence_claims.claim_fence, other, 1, await world.operation(), **terms)
    await world.host("h3")
    facts = await engine.recoveries.fence_facts(await assess_order(death), ())
    assert (facts.armed, facts.own_host, facts.hosts, facts.hosts_silent) == (True, True, 3, 2)
    assert [one.spent for one in facts.budgets] == [1]


@pytest.mark.parametrize(
    ("move", "phase"),
    [(Move.FENCE, "prove"), (Move.ACCEPT, "prove"), (Move.HOLD, "decide"), (Move.RETURN, "decide")],
)
async def test_a_decision_is_kept_and_only_going_on_enters_the_next_phase(
    engine: Engine, move: Move, phase: str
) -> None:
    death = await Death(engine, await engine.world.host()).build()
    decision = Decision(move=move, why="because")
    heard = {"m1": 7}
    await engine.recoveries.note_decision(await assess_order(death), decision, TOLD, known(heard))
    (row,) = await engine.rows("incident")
    assert (row["phase"], row["decision"]["why"]) == (phase, "because")
    assert (row["decision"]["at"], row["decision"]["heard"]) == (START.isoformat(), heard)


async def report(death: Death, *states: OperationState, returned: bool = False) -> str:
    outcomes = tuple(Outcome(operation_id=death.operation, state=state) for state in states)
    ref = await death.engine.ref(death.host)
    order = ReportOrder(incident_id=death.incident, host=ref, returned=returned, outcomes=outcomes)
    return await death.engine.recoveries.report(order)


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ((), "recovered"),
        ((OperationState.SUCCEEDED,), "recovered"),
        ((OperationState.SUCCEEDED, OperationState.FAILED), "incomplete"),
    ],
)
async def test_an_incident_closes_with_what_became_of_the_vms(
    engine: Engine, states: tuple[OperationState, ...], outcome: str
) -> None:
    death = await Death(engine, await engine.world.host()).build()
    first = await report(death, *states)
    assert await report(death, *states) == first
    (row,) = await engine.rows("incident")
    assert (row["open"], row["outcome"], row["phase"]) == (None, outcome, "done")
    good = sum(state is OperationState.SUCCEEDED for state in states)
    assert first == f"{good} of {len(states)} VMs of h1 run again"


async def test_a_host_that_returned_is_up_at_its_old_epoch_and_may_fail_again(
    engine: Engine,
) -> None:
    death = await Death(engine, await engine.world.host()).build()
    await engine.world.put("host", death.host, state="non_responsive")
    await report(death, returned=True)
    row = await engine.world.get("host", death.host)
    assert (row["state"], row["epoch"]) == ("up", 1)
    assert columns(await engine.rows("incident"), "outcome") == ["returned"]
    await engine.world.incident(death.host)

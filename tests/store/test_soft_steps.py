"""SSH access and soft steps in the rows: what is kept of a key, and what the claim asks for."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from activities.migrating import ReserveOrder
from activities.soft_steps import EndStep, SoftStep
from domain.errors import Conflict, Refused
from domain.profiles import Policy
from domain.readings import Knock
from domain.soft_step import TRIES_MAX, WINDOW_S, Hung
from engine.actions.clusters import ArmCluster, EditCluster
from engine.actions.host_config import EditHost, RemoveHost
from engine.actions.hosts import RecoverHost
from engine.actions.operations import CancelOperation
from engine.actions.soft_steps import RestartLibvirtd
from engine.actions.ssh_access import Access
from engine.queries.inventory import GetHost
from engine.queries.ssh import HostSsh
from engine.records.migrating import MigrationRecords
from engine.records.soft_steps import ENDED, SoftStepRecords
from store import migrating, observations
from tests.store.engine_room import Engine
from tests.store.scenes import HOST_KEY
from tests.store.test_inventory_hosts import event_of, summary_of

pytestmark = pytest.mark.store
PRIVATE = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n"
HUNG = Hung(epoch=1, silent_s=20, door=Knock.OPEN, reported_by="m1")


def access(**changes: Any) -> Access:
    given: dict[str, Any] = {"user": "holdfast", "host_key": HOST_KEY}
    return Access(**given | {"private_key": SecretStr(PRIVATE)} | changes)


async def reachable(engine: Engine, **values: Any) -> UUID:
    """A host that hangs and may be reached."""
    host_id = await engine.world.host(**{"state": "connecting"} | values)
    await engine.act(EditHost(host_id=host_id, ssh=access()))
    return host_id


def records(engine: Engine) -> SoftStepRecords:
    return SoftStepRecords(engine.world.database, engine.world.clock)


async def step_of(engine: Engine, host_id: UUID, hung: Hung | None = HUNG) -> SoftStep:
    ref = await engine.ref(host_id)
    return SoftStep(operation_id=uuid4(), attempt=1, host=ref, policy=Policy(), hung=hung)


async def claimed(engine: Engine, host_id: UUID, hung: Hung | None = HUNG) -> SoftStep:
    step = await step_of(engine, host_id, hung)
    await records(engine).claim(step)
    return step


# The key


async def test_access_is_sealed_and_told_by_the_fingerprint_of_the_host_alone(
    engine: Engine,
) -> None:
    host_id = await engine.world.host()
    receipt = await engine.act(EditHost(host_id=host_id, ssh=access(port=2222)))
    (row,) = await engine.rows("ssh_access")
    assert row["secrets"] == f"private_key={PRIVATE}".encode()[::-1]
    event = await event_of(engine, receipt.operation_id)
    assert event["before"] == {"ssh": None}
    assert (event["after"]["ssh"]["user"], event["after"]["ssh"]["port"]) == ("holdfast", 2222)
    everything = await engine.everything() | {"ssh_access": []}
    assert "c2VzYW1l" not in str(everything)
    view = await engine.backend.run_query(HostSsh(host_id=host_id))
    assert view.access.fingerprint.startswith("SHA256:")
    assert "c2VzYW1l" not in view.model_dump_json()


async def test_the_same_access_again_changes_nothing_and_another_key_does(engine: Engine) -> None:
    host_id = await engine.world.host()
    await engine.act(EditHost(host_id=host_id, ssh=access()))
    version = (await engine.world.get("host", host_id))["version"]
    again = EditHost(host_id=host_id, ssh=access())
    assert await summary_of(engine, again) == "nothing to change"
    assert (await engine.world.get("host", host_id))["version"] == version
    other = SecretStr(PRIVATE.replace("c2Vz", "b3Ro"))
    await engine.act(EditHost(host_id=host_id, ssh=access(private_key=other)))
    (row,) = await engine.rows("ssh_access")
    assert b"b3Ro" in row["secrets"][::-1]


async def test_access_is_taken_away_by_an_edit_and_with_its_host(engine: Engine) -> None:
    host_id = await reachable(engine)
    await engine.act(EditHost(host_id=host_id, ssh=None))
    assert await engine.rows("ssh_access") == []
    await engine.act(EditHost(host_id=host_id, ssh=access()))
    await engine.world.put("host", host_id, state="maintenance")
    await engine.act(RemoveHost(host_id=host_id))
    assert await engine.rows("ssh_access") == []


async def test_a_key_that_nobody_can_use_is_refused(engine: Engine) -> None:
    host_id = await engine.world.host()
    error = await engine.refusal(EditHost(host_id=host_id, ssh=access(private_key="hunter2")))
    assert error.code == "SSH_KEY_UNUSABLE"
    assert "hunter2" not in error.detail


# The claim: each condition stands in the statement itself


async def no_access(engine: Engine, host_id: UUID) -> None:
    await engine.act(EditHost(host_id=host_id, ssh=None))


async def disarmed(engine: Engine, host_id: UUID) -> None:
    await engine.act(ArmCluster(cluster_id=engine.world.cluster_id, armed=False))


async def switched_off(engine: Engine, host_id: UUID) -> None:
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, soft_step=False))


async def answers_again(engine: Engine, host_id: UUID) -> None:
    await engine.world.put("host", host_id, state="up")


async def fails(engine: Engine, host_id: UUID) -> None:
    await engine.world.put("host", host_id, state="non_responsive")


async def in_maintenance(engine: Engine, host_id: UUID) -> None:
    await engine.world.put("host", host_id, state="maintenance")


async def next_epoch(engine: Engine, host_id: UUID) -> None:
    await engine.world.put("host", host_id, epoch=2)


async def heard(engine: Engine, host_id: UUID) -> None:
    await engine.world.monitor()
    await engine.world.observe(host_id)


async def moves_away(engine: Engine, host_id: UUID) -> None:
    world = engine.world
    await world.put("host", host_id, state="up")
    run = await world.running(await world.vm(), host_id)
    target, mover = await world.host("h2"), await world.operation(kind="vm.migrate")
    assert await world.do(migrating.begin, run["id"], target, 1, mover)
    await world.put("host", host_id, state="connecting")


async def moves_here(engine: Engine, host_id: UUID) -> None:
    world = engine.world
    await world.put("host", host_id, state="up")
    run = await world.running(await world.vm(), await world.host("h2"))
    mover = await world.operation(kind="vm.migrate")
    assert await world.do(migrating.begin, run["id"], host_id, 1, mover)
    await world.put("host", host_id, state="connecting")


async def tries_spent(engine: Engine, host_id: UUID) -> None:
    for _ in range(TRIES_MAX):
        await claimed(engine, host_id)


UNSAFE = (no_access, fails, in_maintenance, next_epoch, moves_away, moves_here)
NOT_BY_ITSELF = (disarmed, switched_off, answers_again, heard, tries_spent)


@pytest.mark.parametrize("happens", [*UNSAFE, *NOT_BY_ITSELF])
async def test_what_changed_since_it_was_asked_for_forbids_the_claim(
    engine: Engine, happens: Any
) -> None:
    host_id = await reachable(engine)
    step = await step_of(engine, host_id)
    await happens(engine, host_id)
    known = len(await engine.rows("soft_step"))
    with pytest.raises(Conflict) as refused:
        await records(engine).claim(step)
    assert refused.value.code == "SOFT_STEP_NOT_ALLOWED"
    assert len(await engine.rows("soft_step")) == known


@pytest.mark.parametrize("happens", UNSAFE)
async def test_a_person_is_held_to_what_is_safe(engine: Engine, happens: Any) -> None:
    host_id = await reachable(engine)
    step = await step_of(engine, host_id, None)
    await happens(engine, host_id)
    with pytest.raises(Conflict):
        await records(engine).claim(step)


@pytest.mark.parametrize("happens", NOT_BY_ITSELF)
async def test_a_person_may_where_the_engine_by_itself_may_not(
    engine: Engine, happens: Any
) -> None:
    host_id = await reachable(engine)
    await happens(engine, host_id)
    await claimed(engine, host_id, None)


async def test_a_claim_that_is_repeated_counts_once(engine: Engine) -> None:
    host_id = await reachable(engine)
    step = await claimed(engine, host_id)
    await answers_again(engine, host_id)
    again = await records(engine).claim(step)
    assert (again.access.address, again.access.user) == ("h1", "holdfast")
    assert len(await engine.rows("soft_step")) == 1


async def test_tries_that_left_the_window_make_room(engine: Engine) -> None:
    host_id = await reachable(engine)
    await tries_spent(engine, host_id)
    engine.world.later(WINDOW_S + 1)
    await claimed(engine, host_id)


async def test_guests_before_are_those_of_the_last_answer(engine: Engine) -> None:
    host_id = await reachable(engine)
    alive, ended = uuid4(), uuid4()
    await engine.world.monitor()
    seen = {"host_id": host_id, "verdict": "connecting", "silent_s": 1.0, "misses": 1}
    seen |= {"others_seen": 1, "last_answer_at": None, "heard_sequence": None}
    guests = [
        {"vm_id": str(alive), "name": "db", "state": "running"},
        {"vm_id": str(ended), "name": "web", "state": "shutoff"},
    ]
    sample = {"host_id": host_id, "memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1}
    sample |= {"took_s": 0.1, "guests": guests}
    rows: dict[str, Any] = {"observations": [seen], "samples": [sample], "warm": True}
    rows |= {"now": engine.world.now, "watched_ms": lambda: 0}
    await engine.world.do(observations.record_round, "m1", 1, **rows)
    engine.world.later(1)
    found = await records(engine).claim(await step_of(engine, host_id))
    assert [(guest.vm_id, guest.name) for guest in found.guests] == [(alive, "db")]


async def test_an_end_is_told_once_and_shown_on_the_host(engine: Engine) -> None:
    host_id = await reachable(engine)
    step = await claimed(engine, host_id)
    end = EndStep(step=step, outcome="failed", detail="SSH_NO_ANSWER: nobody there")
    for outcome in ("failed", "answered"):
        await records(engine).end(end.model_copy(update={"outcome": outcome}))
    assert [e["data"]["outcome"] for e in await engine.rows("event") if e["type"] == ENDED] == [
        "failed"
    ]
    view = await engine.backend.run_query(HostSsh(host_id=host_id))
    shown = await engine.backend.run_query(GetHost(host_id=host_id))
    assert "SSH_NO_ANSWER" in shown.state_reason
    assert (view.soft_step.outcome, view.soft_step.tries) == ("failed", 1)
    assert view.soft_step.next_try_at > engine.world.now


# Migrations: each shuts the other out


@pytest.mark.parametrize("leaves", [True, False])
async def test_no_vm_begins_to_migrate_while_the_libvirtd_of_a_host_is_restarted(
    engine: Engine, leaves: bool
) -> None:
    world = engine.world
    step = await under_way(engine)
    other = await world.host("h2")
    here, there = (step.host.host_id, other) if leaves else (other, step.host.host_id)
    vm_id = await world.vm()
    run, mover = await world.running(vm_id, here), await world.operation(vm_id, kind="vm.migrate")
    move = (migrating.begin, run["id"], there, 1, mover)
    assert await world.do(*move) is None
    await world.lock(vm_id, mover)
    order = ReserveOrder(operation_id=mover, attempt=1, vm_id=vm_id, host_id=there)
    waits = await MigrationRecords(world.database, engine.backend).reserve(order)
    assert "libvirtd on a host of its is being restarted" in str(waits.no_room)
    assert (await world.get("host", there))["memory_reserved_mib"] == 0
    await records(engine).end(EndStep(step=step, outcome="answered", detail="it answers"))
    assert await world.do(*move) is not None


async def test_a_target_is_looked_for_among_hosts_whose_libvirtd_is_left_alone(
    engine: Engine,
) -> None:
    world = engine.world
    step = await under_way(engine)
    here, free = await world.host("h2"), await world.host("h3", memory_mib=300)
    vm_id = await world.vm()
    await world.running(vm_id, here)
    mover = await world.operation(vm_id, kind="vm.migrate")
    await world.lock(vm_id, mover)
    order = ReserveOrder(operation_id=mover, attempt=1, vm_id=vm_id, host_id=None)
    reserved = await MigrationRecords(world.database, engine.backend).reserve(order)
    assert reserved.migration is not None
    assert reserved.migration.target.host_id == free != step.host.host_id


async def test_a_step_whose_operation_has_ended_holds_up_no_migration(engine: Engine) -> None:
    world = engine.world
    step = await under_way(engine)
    await world.put("operation", step.operation_id, state="failed", finished_at=world.now)
    run = await world.running(await world.vm(), step.host.host_id)
    mover = await world.operation(kind="vm.migrate")
    assert await world.do(migrating.begin, run["id"], await world.host("h2"), 1, mover)


async def given_up(engine: Engine, step: SoftStep) -> None:
    await records(engine).end(EndStep(step=step, outcome="cancelled", detail="given up"))


async def over(engine: Engine, step: SoftStep) -> None:
    now = engine.world.now
    await engine.world.put("operation", step.operation_id, state="failed", finished_at=now)


async def moving_after_all(engine: Engine, step: SoftStep) -> None:
    world = engine.world
    run = await world.running(await world.vm(), step.host.host_id)
    names = {"target_host_id": await world.host("h2"), "target_epoch": 1, "target_generation": 2}
    mover = await world.operation(kind="vm.migrate")
    await world.put("vm_run", run["id"], state="migrating", moved_by=mover, **names)


@pytest.mark.parametrize("happens", [given_up, over, moving_after_all])
async def test_just_before_the_restart_it_is_asked_whether_the_step_still_holds(
    engine: Engine, happens: Any
) -> None:
    step = await under_way(engine)
    await records(engine).ask_again(step)
    await happens(engine, step)
    with pytest.raises(Conflict) as refused:
        await records(engine).ask_again(step)
    assert refused.value.code == "SOFT_STEP_NOT_ALLOWED"


async def under_way(engine: Engine) -> SoftStep:
    """A person has the libvirtd of h1 restarted, which is claimed."""
    host_id = await reachable(engine, state="up")
    step = await step_of(engine, host_id, None)
    operation_id = await engine.world.operation(host_id, kind="host.restart_libvirtd")
    step = step.model_copy(update={"operation_id": operation_id})
    await records(engine).claim(step)
    return step


# The request


async def test_a_report_is_refused_with_every_reason_and_the_next_time(engine: Engine) -> None:
    host_id = await reachable(engine)
    await tries_spent(engine, host_id)
    await disarmed(engine, host_id)
    with pytest.raises(Refused) as refused:
        await engine.act(RestartLibvirtd(host_id=host_id, hung=HUNG))
    found = {problem.code: problem.detail for problem in refused.value.problems}
    assert set(found) == {"DISARMED", "TRIES_SPENT"}
    assert "not before" in found["TRIES_SPENT"]


async def test_a_soft_step_whose_workflow_was_ended_is_not_under_way_for_ever(
    engine: Engine,
) -> None:
    host_id = await reachable(engine)
    receipt = await engine.act(RestartLibvirtd(host_id=host_id, hung=HUNG))
    step = await step_of(engine, host_id)
    step = step.model_copy(update={"operation_id": receipt.operation_id})
    await records(engine).claim(step)
    await engine.act(CancelOperation(operation_id=receipt.operation_id))
    (row,) = await engine.rows("soft_step")
    assert (row["outcome"], row["ended_at"]) == ("cancelled", engine.world.now)


async def test_a_host_whose_address_names_no_machine_cannot_be_given_access(
    engine: Engine,
) -> None:
    host_id = await engine.world.host(uri="test:///default")
    error = await engine.refusal(EditHost(host_id=host_id, ssh=access()))
    assert error.code == "SSH_NO_ADDRESS"


async def test_a_failure_of_the_host_takes_its_soft_step_over(engine: Engine) -> None:
    host_id = await reachable(engine)
    receipt = await engine.act(RestartLibvirtd(host_id=host_id, hung=HUNG))
    failed = RecoverHost(host_id=host_id, epoch=1, why="reads off", reported_by="m1")
    recovery = await engine.act(failed)
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert rows[receipt.operation_id]["state"] in ("cancelled", "cancelling")
    assert [lock["operation_id"] for lock in await engine.rows("entity_lock")] == [
        recovery.operation_id
    ]

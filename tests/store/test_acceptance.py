"""The life of an action: judged as a whole, authorised, locked, executed; or only looked at."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, Denied, EngineError
from domain.permissions import Role
from engine.acceptance import Terms
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.host_config import AddHost
from engine.actions.hosts import ActivateHost
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend, Options
from engine.registry import all_actions, all_queries
from engine.roles import Roles
from store import locks, operations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Agents, Engine, Sealer, columns
from tests.store.world import PERSON

pytestmark = pytest.mark.store


async def asked(engine: Engine, params: Params) -> Any:
    """What a dry run says, after showing that it left every row as it was."""
    before = await engine.everything()
    view = await engine.backend.dry_run(params, PERSON)
    assert await engine.everything() == before, "a dry run wrote something"
    return view


async def test_every_reason_against_an_action_is_told_at_once(engine: Engine) -> None:
    world = engine.world
    await world.host("h1", uri="qemu+tcp://h1/system")
    params = AddHost(cluster_id=world.cluster_id, name="h1", uri="qemu+tcp://h1/system")
    error = await engine.refusal(params)
    assert [problem.code for problem in error.problems] == ["NAME_TAKEN", "URI_TAKEN"]
    assert error.code == "NAME_TAKEN"
    assert all(problem.detail in error.detail for problem in error.problems)
    view = await asked(engine, params)
    assert [problem.code for problem in view.problems] == ["NAME_TAKEN", "URI_TAKEN"]


async def test_a_dry_run_shows_what_would_be_locked_and_done(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm("db", protected=True)
    view = await asked(engine, StartVm(vm_id=vm))
    assert (view.allowed, view.kind, view.workflow) == (True, "vm.start", "StartVm")
    assert (view.target_name, view.permission, view.priority) == ("db", "vm.operate", 2)
    (lock,) = view.locks
    assert (lock.entity_type, lock.entity_id, lock.mode) == ("vm", vm, "exclusive")
    assert lock.held_by is None
    assert view.steps[-1] == "read back as running"


async def test_a_dry_run_names_the_operation_that_is_in_the_way(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm("db")
    first = await engine.act(StartVm(vm_id=vm))
    view = await asked(engine, StartVm(vm_id=vm))
    assert (view.allowed, view.locks[0].held_by) == (False, first.operation_id)
    assert [problem.code for problem in view.problems] == ["OBJECT_BUSY"]
    waiting = Options(dry_run=True, lock_wait_s=5)
    assert (await engine.backend.dry_run(StartVm(vm_id=vm), PERSON, waiting)).allowed


async def test_a_dry_run_of_an_unknown_object_is_refused_like_the_action(engine: Engine) -> None:
    with pytest.raises(EngineError, match="VM_NOT_FOUND"):
        await engine.backend.dry_run(StartVm(vm_id=new_id()), PERSON)


def backend_for(engine: Engine, **roles: Role) -> Backend:
    world = engine.world
    actions = all_actions(Sealer(), Agents())
    return Backend(
        world.database, actions, all_queries(), clock=world.clock, roles=Roles(roles, Role.VIEWER)
    )


async def test_who_may_not_do_it_learns_so_before_anything_else(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm("db")
    backend = backend_for(engine, olga=Role.OPERATOR)
    for attempt in (backend.run_action, backend.dry_run):
        with pytest.raises(Denied, match="PERMISSION_DENIED"):
            await attempt(StartVm(vm_id=vm, host_id=new_id()), PERSON)
    olga = PERSON.model_copy(update={"principal": "olga"})
    with pytest.raises(Denied):
        await backend.run_action(CreateCluster(name="c2"), olga)
    assert await engine.rows("operation") == []
    await backend.run_action(StartVm(vm_id=vm), olga)
    assert columns(await engine.rows("operation"), "principal") == ["olga"]


async def test_a_refusal_leaves_an_event_with_who_what_why_and_each_reason(engine: Engine) -> None:
    vm = await engine.world.vm("db")
    with pytest.raises(EngineError):
        await engine.act(StopVm(vm_id=vm), reason="tired of it")
    (event,) = await engine.rows("event")
    assert (event["type"], event["subject_id"]) == ("vm.stop.refused", vm)
    assert (event["principal"], event["reason"]) == ("ann", "tired of it")
    assert (event["correlation_id"], event["operation_id"]) == ("c-1", None)
    assert [one["code"] for one in event["data"]["problems"]] == ["VM_NOT_RUNNING"]
    assert await engine.rows("operation") == []


async def test_an_event_of_a_change_shows_before_and_after(engine: Engine) -> None:
    await engine.act(ArmCluster(cluster_id=engine.world.cluster_id, armed=False))
    (event,) = await engine.rows("event")
    assert event["before"] == {"armed": True, "disarm_mode": None}
    assert event["after"] == {"armed": False, "disarm_mode": "hold"}


async def recovery_of(engine: Engine, host: UUID) -> Row:
    """The operation of a recovery, as its steps know it."""
    operation = await engine.world.operation(
        host, kind="host.recover", target_type="host", target_name="h1", priority=1
    )
    row = await engine.world.do(operations.get, operation)
    assert row is not None
    return row


async def test_the_same_start_is_a_persons_own_or_a_part_of_a_recovery(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    by_person = await engine.act(StartVm(vm_id=await world.vm("a", protected=True)))
    recovery = await recovery_of(engine, host)
    other = StartVm(vm_id=await world.vm("b", protected=True))

    async def recover(_connection: AsyncConnection) -> UUID:
        return await engine.backend.run_child(other, recovery, Terms(by_parent=True))

    by_recovery = await world.database.write(recover)
    rows = {row["id"]: row for row in await engine.rows("operation")}
    person, child = rows[by_person.operation_id], rows[by_recovery]
    assert (person["kind"], child["kind"]) == ("vm.start", "vm.start")
    assert (person["parent_id"], child["parent_id"]) == (None, recovery["id"])
    assert (person["priority"], child["priority"]) == (2, 2)
    assert columns(await engine.rows("outbox"), "operation_id") == [by_person.operation_id]
    assert {row["operation_id"] for row in await engine.rows("entity_lock")} == {
        by_person.operation_id,
        by_recovery,
    }


async def test_a_start_within_a_recovery_is_undone_with_it(engine: Engine) -> None:
    world = engine.world
    recovery = await recovery_of(engine, await world.host())
    vm = await world.vm("db")
    before = await engine.everything()

    async def recover(_connection: AsyncConnection) -> None:
        await engine.backend.run_child(StartVm(vm_id=vm), recovery, Terms())
        raise LookupError("the recovery fails later in its transaction")

    with pytest.raises(LookupError):
        await world.database.write(recover)
    await engine.backend.close()
    assert await engine.everything() == before
    assert engine.deliverer.delivered == []


async def test_a_part_of_an_operation_needs_that_operations_transaction(engine: Engine) -> None:
    recovery = await recovery_of(engine, await engine.world.host())
    vm = await engine.world.vm("db")
    with pytest.raises(Conflict, match="TRANSACTION_REQUIRED"):
        await engine.backend.run_child(StartVm(vm_id=vm), recovery, Terms())


async def test_nothing_is_delivered_before_the_outer_transaction_is_committed(
    engine: Engine,
) -> None:
    world = engine.world
    await world.host()
    vm = await world.vm("db")

    async def outer(_connection: AsyncConnection) -> UUID:
        receipt = await engine.act(StartVm(vm_id=vm))
        await engine.backend.close()
        assert engine.deliverer.delivered == []
        return receipt.operation_id

    operation = await world.database.write(outer)
    await engine.backend.close()
    assert engine.deliverer.delivered == [operation]


async def test_a_recovery_takes_a_lock_over_and_the_loser_ends_visibly(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    vm = await world.vm("db", protected=True)
    loser = await engine.act(StartVm(vm_id=vm))
    recovery = await recovery_of(engine, host)

    async def recover(_connection: AsyncConnection) -> UUID:
        terms = Terms(by_parent=True, preempt=True)
        return await engine.backend.run_child(StartVm(vm_id=vm), recovery, terms)

    winner = await world.database.write(recover)
    held = await world.do(locks.holder, "vm", vm)
    assert held is not None
    assert (held.operation_id, held.generation) == (winner, 1)
    row = await world.do(operations.get, loser.operation_id)
    assert row is not None
    assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")
    assert str(winner) in row["problem"]["next_step"]
    assert "vm.start.cancelled" in columns(await engine.rows("event"), "type")
    assert not await world.do(operations.claim, loser.operation_id, 1, "run-1", world.now)


async def test_without_that_right_nobody_takes_a_lock_over(engine: Engine) -> None:
    world = engine.world
    recovery = await recovery_of(engine, await world.host())
    vm = await world.vm("db")
    await engine.act(StartVm(vm_id=vm))

    async def other(_connection: AsyncConnection) -> UUID:
        return await engine.backend.run_child(StartVm(vm_id=vm), recovery, Terms())

    with pytest.raises(Conflict, match="OBJECT_BUSY"):
        await world.database.write(other)


async def test_a_request_that_waits_for_a_lock_is_accepted_and_not_started(engine: Engine) -> None:
    world = engine.world
    host = await world.host(state="down")
    first = await engine.act(ActivateHost(host_id=host))
    receipt = await engine.backend.run_action(
        ActivateHost(host_id=host), PERSON, options=Options(lock_wait_s=30)
    )
    row = await world.do(operations.get, receipt.operation_id)
    assert row is not None
    assert (row["state"], row["reason_code"]) == ("waiting", "LOCK_HELD")
    assert "host.activate" in row["waiting_for"]
    assert row["params"]["host_id"] == str(host)
    assert (row["lock_deadline_at"] - world.now).total_seconds() == 30
    assert columns(await engine.rows("entity_lock"), "operation_id") == [first.operation_id]
    assert columns(await engine.rows("outbox"), "operation_id") == [first.operation_id]

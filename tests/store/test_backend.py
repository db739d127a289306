"""One transaction an action: what it writes, what it refuses, and what a repeated key gives."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from domain.context import PriorityClass
from domain.errors import Conflict, Denied, Invalid, NotFound
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.fence_devices import AddFenceDevice
from engine.actions.host_config import AddHost
from engine.actions.hosts import ActivateHost
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend, Options, Receipt
from engine.queries.inventory import ListFenceDevices, ListVms
from engine.queries.operations import GetOperation
from engine.writes import DIRECT_START_S
from store import inventory, locks, operations, plumbing
from store.ids import new_id
from tests.store.engine_room import Engine, columns
from tests.store.world import PERSON, World

pytestmark = pytest.mark.store


async def test_a_created_cluster_is_there_at_once_with_its_closed_operation_and_event(
    engine: Engine,
) -> None:
    receipt = await engine.act(CreateCluster(name="c2"))
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    assert (row["kind"], row["state"], row["workflow"]) == ("cluster.create", "succeeded", None)
    assert await engine.world.do(inventory.find, "cluster", "c2") is not None
    assert columns(await engine.rows("event"), "type", "operation_id") == [
        ("cluster.create.done", receipt.operation_id)
    ]
    assert await engine.rows("outbox") == []
    await engine.backend.close()
    assert engine.deliverer.delivered == []


async def test_an_added_host_is_written_locked_posted_and_delivered(engine: Engine) -> None:
    params = AddHost(cluster_id=engine.world.cluster_id, name="h1", uri="qemu+tcp://h1/system")
    receipt = await engine.act(params)
    await engine.backend.close()
    assert engine.deliverer.delivered == [receipt.operation_id]
    (host,) = await engine.rows("host")
    assert (host["state"], host["epoch"], host["memory_mib"]) == ("reconciling", 0, 0)
    lock = await engine.world.do(locks.holder, "host", host["id"])
    assert lock is not None
    assert lock.operation_id == receipt.operation_id
    posted = await engine.world.do(plumbing.posted, receipt.operation_id)
    assert posted is not None
    assert (posted["workflow"], posted["order"]["host"]["name"]) == ("ActivateHost", "h1")
    assert posted["due_at"] == engine.world.now + timedelta(seconds=DIRECT_START_S)
    (event,) = await engine.rows("event")
    assert (event["type"], event["data"]) == ("host.add.accepted", {"name": "h1"})


async def test_a_fence_devices_secrets_are_sealed_and_never_shown(engine: Engine) -> None:
    host = await engine.world.host()
    secret = {"password": SecretStr("hunter2")}
    options = {"ip": "127.0.0.1"}
    params = AddFenceDevice(
        host_id=host, name="bmc1", agent="fence_ipmilan", options=options, secrets=secret
    )
    await engine.act(params)
    (device,) = await engine.rows("fence_device")
    assert device["secrets"] == b"password=hunter2"[::-1]
    rest = await engine.everything() | {"fence_device": [device | {"secrets": b""}]}
    assert "hunter2" not in str(rest)
    (view,) = (await engine.backend.run_query(ListFenceDevices(host_id=host))).items
    assert (view.name, view.host_name, view.options) == ("bmc1", "h1", options)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"agent": "fence_nothing"}, "FENCE_AGENT_UNKNOWN"),
        ({"secrets": {"pin": "1234"}}, "FENCE_OPTION_UNKNOWN"),
        ({"options": {"warp": "9"}}, "FENCE_AGENT_UNKNOWN"),
        ({"host_id": new_id()}, "HOST_NOT_FOUND"),
        ({"name": "taken"}, "NAME_TAKEN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_fence_device_is_refused(
    engine: Engine, change: dict[str, Any], code: str
) -> None:
    host = await engine.world.host()
    await engine.world.device(host, "taken")
    good: dict[str, Any] = {"host_id": host, "name": "bmc1", "agent": "fence_ipmilan"}
    assert (await engine.refusal(AddFenceDevice(**good | change))).code == code


async def test_names_and_addresses_are_given_once(engine: Engine) -> None:
    world = engine.world
    await world.host("h1", uri="qemu+tcp://h1/system")
    await world.vm("db")
    host = {"cluster_id": world.cluster_id, "name": "h2", "uri": "qemu+tcp://h2/system"}
    taken: list[tuple[Params, str]] = [
        (CreateCluster(name="c1"), "NAME_TAKEN"),
        (CreateVm(cluster_id=world.cluster_id, name="db", memory_mib=64), "NAME_TAKEN"),
        (AddHost.model_validate(host | {"name": "h1"}), "NAME_TAKEN"),
        (AddHost.model_validate(host | {"uri": "qemu+tcp://h1/system"}), "URI_TAKEN"),
    ]
    for params, code in taken:
        error = await engine.refusal(params)
        assert (error.code, type(error)) == (code, Conflict)


async def test_a_name_wanted_twice_at_once_is_given_once(engine: Engine) -> None:
    ends = await asyncio.gather(
        *(engine.act(CreateCluster(name="c2")) for _ in range(5)), return_exceptions=True
    )
    refused = [end.code for end in ends if isinstance(end, Conflict)]
    assert refused == ["NAME_TAKEN"] * 4
    assert columns(await engine.rows("cluster"), "name").count("c2") == 1
    assert len(await engine.rows("operation")) == 1


async def test_unknown_ids_are_refused_and_named(engine: Engine) -> None:
    nobody = new_id()
    unknown: list[tuple[Params, str]] = [
        (StartVm(vm_id=nobody), "VM_NOT_FOUND"),
        (StopVm(vm_id=nobody), "VM_NOT_FOUND"),
        (ActivateHost(host_id=nobody), "HOST_NOT_FOUND"),
        (ArmCluster(cluster_id=nobody, armed=False), "CLUSTER_NOT_FOUND"),
        (AddHost(cluster_id=nobody, name="h1", uri="test:///default"), "CLUSTER_NOT_FOUND"),
        (CreateVm(cluster_id=nobody, name="vm1", memory_mib=64), "CLUSTER_NOT_FOUND"),
    ]
    for params, code in unknown:
        error = await engine.refusal(params)
        assert (error.code, type(error)) == (code, NotFound)
        assert str(nobody) in error.detail
        assert error.next_step


async def test_a_vm_that_depends_on_an_unknown_one_is_not_created(engine: Engine) -> None:
    known = await engine.world.vm("db")
    params = CreateVm(
        cluster_id=engine.world.cluster_id,
        name="app",
        memory_mib=64,
        depends_on=(known, new_id()),
    )
    assert (await engine.refusal(params)).code == "VM_NOT_FOUND"


async def test_a_created_vm_shows_what_it_depends_on(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db")
    params = CreateVm(
        cluster_id=world.cluster_id, name="app", memory_mib=64, depends_on=(db, db), protected=True
    )
    await engine.act(params)
    (view,) = (await engine.backend.run_query(ListVms(name="app"))).items
    assert (view.depends_on, view.state, view.protected) == ((db,), "down", True)


async def test_the_same_request_under_the_same_key_gives_the_first_answer(engine: Engine) -> None:
    first = await engine.act(CreateCluster(name="c2"), "key-1")
    after = await engine.everything()
    again = await engine.act(CreateCluster(name="c2"), "key-1")
    assert (again.operation_id, again.replayed) == (first.operation_id, True)
    assert await engine.everything() == after


async def test_another_request_under_the_same_key_is_refused(engine: Engine) -> None:
    first = await engine.act(CreateCluster(name="c2"), "key-1")
    others: list[Params] = [
        CreateCluster(name="c3"),
        ArmCluster(cluster_id=engine.world.cluster_id, armed=False),
    ]
    for other in others:
        error = await engine.refusal(other, "key-1")
        assert (error.code, type(error)) == ("IDEMPOTENCY_KEY_REUSED", Invalid)
        assert error.context["operation_id"] == str(first.operation_id)


async def test_another_secret_under_the_same_key_is_another_request(engine: Engine) -> None:
    host = await engine.world.host()

    def device(password: str) -> AddFenceDevice:
        secret = {"password": SecretStr(password)}
        return AddFenceDevice(host_id=host, name="b", agent="fence_ipmilan", secrets=secret)

    first = await engine.act(device("one"), "key-1")
    assert (await engine.act(device("one"), "key-1")).operation_id == first.operation_id
    assert (await engine.refusal(device("two"), "key-1")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_the_same_request_asked_for_in_another_way_is_another_request(
    engine: Engine,
) -> None:
    await engine.world.host()
    params = StartVm(vm_id=await engine.world.vm())

    async def ask(**options: Any) -> Receipt:
        return await engine.backend.run_action(params, PERSON, "key-1", Options(**options))

    first = await ask(lock_wait_s=5)
    assert (await ask(lock_wait_s=5)).operation_id == first.operation_id
    for other in ({}, {"lock_wait_s": 6}, {"lock_wait_s": 5, "priority": PriorityClass.BALANCE}):
        with pytest.raises(Invalid, match="IDEMPOTENCY_KEY_REUSED"):
            await ask(**other)


async def test_a_key_of_one_principal_means_nothing_to_another(engine: Engine) -> None:
    await engine.act(CreateCluster(name="c2"), "key-1")
    other = await engine.act(CreateCluster(name="c3"), "key-1", principal="bob")
    assert not other.replayed


async def test_a_refused_request_leaves_its_key_free(engine: Engine) -> None:
    await engine.refusal(CreateCluster(name="c1"), "key-1")
    assert not (await engine.act(CreateCluster(name="c2"), "key-1")).replayed


async def test_one_key_used_at_once_gives_one_operation(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    receipts = await asyncio.gather(*(engine.act(StartVm(vm_id=vm), "key-1") for _ in range(8)))
    await engine.backend.close()
    assert len({receipt.operation_id for receipt in receipts}) == 1
    assert sorted(receipt.replayed for receipt in receipts) == [False] + [True] * 7
    for table in ("operation", "outbox", "event", "entity_lock", "idempotency_key"):
        assert len(await engine.rows(table)) == 1, table
    assert engine.deliverer.delivered == [receipts[0].operation_id]


async def test_a_busy_object_names_the_operation_that_works_on_it(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    first = await engine.act(StartVm(vm_id=vm))
    error = await engine.refusal(StartVm(vm_id=vm))
    assert error.code == "OBJECT_BUSY"
    assert error.context["holder_operation_id"] == str(first.operation_id)
    assert "vm.start, pending" in error.detail


async def test_of_concurrent_starts_of_one_vm_one_is_accepted(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    starts = (engine.act(StartVm(vm_id=vm)) for _ in range(6))
    ends = await asyncio.gather(*starts, return_exceptions=True)
    assert [end.code for end in ends if isinstance(end, Conflict)] == ["OBJECT_BUSY"] * 5
    assert len(await engine.rows("operation")) == 1


class Half(Params):
    """Writes, then refuses."""

    cluster_id: UUID


class HalfAction(Action[Half, None]):
    """Refuses after its writes."""

    params = Half
    kind = "cluster.halve"
    permission = Permission.CLUSTER_ARM

    async def plan(self, tx: Tx, params: Half, problems: Problems) -> Plan[None]:
        """Nothing speaks against it."""
        return Plan(target=Target("cluster", params.cluster_id, "c1"), facts=None)

    async def execute(self, tx: Tx, params: Half, plan: Plan[None]) -> Done:
        """Disarm and refuse."""
        await inventory.arm_cluster(tx.connection, params.cluster_id, armed=False)
        raise Denied("NOT_YOU", "not you")


async def test_an_action_that_refuses_late_takes_its_writes_back(world: World) -> None:
    backend = Backend(world.database, [HalfAction()], [], clock=world.clock)
    with pytest.raises(Denied):
        await backend.run_action(Half(cluster_id=world.cluster_id), PERSON, "key-1")
    assert (await world.get("cluster", world.cluster_id))["armed"] is True


async def test_an_operation_keeps_who_asked_why_and_how_urgently(engine: Engine) -> None:
    receipt = await engine.act(CreateCluster(name="c2"), reason="new rack")
    view = await engine.backend.run_query(GetOperation(operation_id=receipt.operation_id))
    assert (view.principal, view.reason, view.priority) == ("ann", "new rack", 5)
    assert (view.correlation_id, view.done, view.summary) == ("c-1", True, "created")


async def test_a_cluster_is_disarmed_and_armed_again_as_often_as_one_likes(engine: Engine) -> None:
    world = engine.world
    for armed in (False, False, True):
        await engine.act(ArmCluster(cluster_id=world.cluster_id, armed=armed))
        assert (await world.get("cluster", world.cluster_id))["armed"] is armed

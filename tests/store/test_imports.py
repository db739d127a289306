"""What an import writes, who may take it back, and what it refuses; no guest is touched here."""

from typing import Any
from uuid import UUID

import pytest

from activities.imports import ImportStep
from domain.errors import Conflict, EngineError, Invalid, Superseded
from domain.foreign import ForeignGuest, ForeignNic
from domain.inventory import Disk, NicModel
from domain.operations import OperationState, Outcome
from domain.orders import ImportVmOrder
from domain.readings import DomainState
from engine.actions.hosts import RecoverHost
from engine.actions.imports import ImportVm
from engine.actions.vm_config import DeleteVm
from engine.actions.vms import StartVm
from engine.records.imports import ImportRecords
from store import inventory, operations, runs, vms
from store.ids import new_id
from store.rows import Row
from store.schema_ha import host_sample
from tests.store.engine_room import Engine, columns
from tests.store.world import World

pytestmark = pytest.mark.store

MAC = "52:54:00:aa:bb:cc"


def guest(guest_id: UUID, **values: Any) -> ForeignGuest:
    given: dict[str, Any] = {"guest_id": guest_id, "name": "old", "state": DomainState.RUNNING}
    given |= {"memory_mib": 512, "vcpus": 2, "virt_type": "qemu", "machine": "q35"}
    given["disks"] = (Disk(path="/d/old.qcow2", format="qcow2"),)
    return ForeignGuest(**given | values)


class Import:
    """One accepted import of a guest on the world's host, and its records."""

    def __init__(self, engine: Engine, step: ImportStep) -> None:
        self.engine, self.world, self.step = engine, engine.world, step
        self.records = ImportRecords(engine.world.database, engine.world.clock)
        self.guest = guest(step.guest_id)

    async def record(self, **values: Any) -> Any:
        found = self.guest.model_copy(update=values)
        return await self.records.record(self.step, found)

    async def refused(self, **values: Any) -> EngineError:
        before = await self.engine.everything()
        with pytest.raises(EngineError) as error:
            await self.record(**values)
        assert await self.engine.everything() == before
        return error.value

    async def reserved(self) -> int:
        row = await self.world.get("host", self.step.host.host_id)
        return int(row["memory_reserved_mib"])

    async def end(self) -> None:
        outcome = Outcome(operation_id=self.step.operation_id, state=OperationState.FAILED)
        await self.engine.operations.close(outcome)


async def ask(engine: Engine, host: UUID, guest_id: UUID, **more: Any) -> Import:
    wanted = ImportVm.model_validate({"host_id": host, "guest_id": guest_id} | more)
    receipt = await engine.act(wanted)
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    order = ImportVmOrder.model_validate(row["order"])
    same = {name: getattr(order, name) for name in ("operation_id", "host", "guest_id", "name")}
    same |= {"protected": order.protected, "priority": order.priority, "deadline_s": 5.0}
    return Import(engine, ImportStep(**same))


@pytest.fixture
async def taken(engine: Engine) -> Import:
    """An import that is about to record its guest."""
    return await ask(engine, await engine.world.host(), new_id(), protected=True, priority=70)


async def network(world: World, bridge: str | None = "br0") -> UUID:
    row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "name": f"n-{bridge or 'nat'}"}
    await world.do(inventory.insert, "network", row | {"bridge": bridge, "created_at": world.now})
    network_id: UUID = row["id"]
    return network_id


async def test_a_running_guest_becomes_a_vm_with_a_run_and_its_memory_counts(
    taken: Import,
) -> None:
    run = await taken.record()
    world, step = taken.world, taken.step
    vm = await world.get("vm", step.guest_id)
    assert (vm["name"], vm["memory_mib"], vm["vcpus"], vm["generation"]) == ("old", 512, 2, 1)
    assert (vm["protected"], vm["priority"], vm["wanted"]) == (True, 70, True)
    assert (run.generation, run.epoch, run.host_name) == (1, 1, "h1")
    assert (run.spec.machine, run.spec.disks) == ("q35", taken.guest.disks)
    row = await world.run(run.run_id)
    assert (row["state"], row["active"], row["started_at"]) == ("running", 1, world.now)
    assert await taken.reserved() == 512
    assert columns(await taken.engine.rows("host"), "vcpus_reserved") == [2]


async def test_a_guest_that_is_down_becomes_a_vm_without_a_run(taken: Import) -> None:
    assert await taken.record(state=DomainState.SHUTOFF) is None
    vm = await taken.world.get("vm", taken.step.guest_id)
    assert (vm["wanted"], vm["generation"]) == (False, 1)
    assert (await taken.reserved(), await taken.engine.rows("vm_run")) == (0, [])
    assert await taken.records.still_recorded(taken.step)


async def test_the_first_start_of_an_imported_vm_has_a_higher_generation(taken: Import) -> None:
    await taken.record(state=DomainState.SHUTOFF)
    run = await taken.world.placed(taken.step.guest_id, taken.step.host.host_id)
    assert run["generation"] == 2


async def test_recording_twice_gives_the_same_run_and_counts_once(taken: Import) -> None:
    assert await taken.record() == await taken.record()
    assert len(await taken.engine.rows("vm_run")) == 1
    assert await taken.reserved() == 512


async def test_the_memory_of_a_guest_counts_even_where_there_is_no_room(engine: Engine) -> None:
    crowded = await ask(engine, await engine.world.host(memory_mib=256), new_id())
    await crowded.record()
    assert await crowded.reserved() == 512


@pytest.mark.parametrize("state", [DomainState.RUNNING, DomainState.SHUTOFF])
async def test_what_was_recorded_is_taken_back_without_a_trace(
    taken: Import, state: DomainState
) -> None:
    await network(taken.world)
    before = await taken.engine.everything()
    await taken.record(state=state, nics=(ForeignNic(mac=MAC, model="e1000", bridge="br0"),))
    for _ in range(2):
        assert await taken.records.withdraw(taken.step) is True
        assert await taken.engine.everything() == before
    assert not await taken.records.still_recorded(taken.step)


async def test_others_that_wait_for_a_vm_are_freed_when_its_import_is_taken_back(
    taken: Import,
) -> None:
    await taken.record()
    await taken.world.vm("web", depends_on=(taken.step.guest_id,))
    assert await taken.records.withdraw(taken.step) is True
    assert await taken.engine.rows("vm_dependency") == []


async def test_what_a_recovery_has_followed_is_not_taken_back(taken: Import) -> None:
    run, world = await taken.record(), taken.world
    certificate = await world.certificate(taken.step.host.host_id)
    assert await world.do(runs.lose, run.run_id, certificate, world.now)
    assert await taken.records.withdraw(taken.step) is False
    other = await world.host("h2")
    await world.placed(taken.step.guest_id, other)
    assert await taken.records.withdraw(taken.step) is False
    assert await taken.records.still_recorded(taken.step) is False


async def test_an_import_that_has_ended_records_and_withdraws_nothing(taken: Import) -> None:
    await taken.record()
    await taken.end()
    assert await taken.records.still_recorded(taken.step) is False
    assert await taken.records.withdraw(taken.step) is False
    with pytest.raises(Superseded):
        await taken.record()


async def test_a_later_try_of_an_import_goes_on_with_what_an_earlier_one_recorded(
    taken: Import,
) -> None:
    run, world, step = await taken.record(), taken.world, taken.step
    await taken.end()
    await world.put("operation", step.operation_id, state="running", attempt=2)
    with pytest.raises(Superseded):
        await taken.record()
    assert not await taken.records.still_recorded(step)
    assert await taken.records.withdraw(step) is False, "nor may an older try undo it"
    taken.step = step.model_copy(update={"attempt": 2})
    assert await taken.record() == run
    assert (await world.get("vm", step.guest_id))["name"] == "old"


async def test_a_name_or_an_address_that_another_vm_has_is_refused(taken: Import) -> None:
    world, lan = taken.world, await network(taken.world)
    vm = await world.vm("old")
    assert (await taken.refused()).code == "NAME_TAKEN"
    await world.put("vm", vm, name="db")
    card: Row = {"network_id": lan, "mac": MAC, "model": "virtio"}
    await world.do(vms.put_nics, vm, [card])
    nic = ForeignNic(mac=MAC, model=NicModel.VIRTIO, bridge="br0")
    error = await taken.refused(nics=(nic,))
    assert (error.code, error.context["vm"]) == ("MAC_TAKEN", "db")


async def test_a_card_on_a_bridge_of_no_network_is_refused_by_the_bridges(taken: Import) -> None:
    await network(taken.world, None)
    nics = [ForeignNic(mac=MAC, model=NicModel.VIRTIO, bridge="br7")]
    nics += [ForeignNic(mac="52:54:00:00:00:01", model=NicModel.E1000)]
    error = await taken.refused(nics=tuple(nics))
    assert (error.code, error.context["bridges"]) == ("NETWORK_MISSING", "br7")
    await network(taken.world, "br7")
    run = await taken.record(nics=tuple(nics))
    assert [(nic.network, nic.bridge, nic.mac) for nic in run.spec.nics] == [
        ("n-br7", "br7", MAC),
        ("n-nat", None, "52:54:00:00:00:01"),
    ]


async def test_a_guest_of_another_kind_than_its_cluster_is_refused(taken: Import) -> None:
    error = await taken.refused(virt_type="kvm")
    assert (error.code, error.context["kind"]) == ("GUEST_KIND_DIFFERS", "kvm")


@pytest.mark.parametrize("change", [{"epoch": 2}, {"state": "down"}, {"state": "fencing"}])
async def test_nothing_is_recorded_on_a_host_that_has_moved_on(
    taken: Import, change: dict[str, Any]
) -> None:
    await taken.world.put("host", taken.step.host.host_id, **change)
    for state in (DomainState.RUNNING, DomainState.SHUTOFF):
        assert (await taken.refused(state=state)).code == "EPOCH_STALE"


@pytest.mark.parametrize("change", [{"epoch": 2}, {"state": "down"}])
async def test_the_statement_itself_writes_no_run_on_a_host_that_has_moved_on(
    engine: Engine, change: dict[str, Any]
) -> None:
    world = engine.world
    host, vm = await world.host(), await world.vm()
    run: Row = {"id": new_id(), "vm_id": vm, "host_id": host, "epoch": 1, "generation": 1}
    run |= {"state": "running", "active": 1, "memory_mib": 64, "vcpus": 1, "created_at": world.now}
    await world.put("host", host, **change)
    assert await world.do(vms.record_running, run) is False
    assert await engine.rows("vm_run") == []


async def test_a_deleted_vm_that_never_ran_may_be_imported_again(engine: Engine) -> None:
    host, guest_id = await engine.world.host(), new_id()
    first = await ask(engine, host, guest_id)
    await first.record(state=DomainState.SHUTOFF)
    await first.end()
    await engine.act(DeleteVm(vm_id=guest_id))
    second = await ask(engine, host, guest_id)
    assert (await second.record()).generation == 1


async def test_the_id_of_a_deleted_vm_with_history_is_not_given_again(engine: Engine) -> None:
    world, host, guest_id = engine.world, await engine.world.host(), new_id()
    first = await ask(engine, host, guest_id)
    run = await first.record()
    await first.end()
    assert await world.do(runs.end, run.run_id, "stopped", world.now)
    await engine.act(DeleteVm(vm_id=guest_id))
    error = await (await ask(engine, host, guest_id)).refused()
    assert (error.code, type(error)) == ("GUEST_ID_IN_HISTORY", Conflict)


async def test_a_guest_that_is_a_vm_already_is_not_imported(engine: Engine) -> None:
    host, vm = await engine.world.host(), await engine.world.vm("db")
    error = await engine.refusal(ImportVm(host_id=host, guest_id=vm))
    assert (error.code, error.context["vm"]) == ("GUEST_ALREADY_OURS", "db")


@pytest.mark.parametrize("state", ["connecting", "down", "maintenance", "reconciling", "error"])
async def test_guests_are_only_imported_from_a_host_in_service(engine: Engine, state: str) -> None:
    host = await engine.world.host(state=state)
    error = await engine.refusal(ImportVm(host_id=host, guest_id=new_id()))
    assert (error.code, error.context["state"]) == ("HOST_STATE_FORBIDS", state)


async def heard(world: World, host: UUID, guest_id: UUID, name: str) -> None:
    guests = [{"vm_id": str(guest_id), "name": name, "state": "running"}]
    row: Row = {"host_id": host, "at": world.now, "memory_total_mib": 1, "memory_free_mib": 1}
    row |= {"cpus": 1, "took_s": 0.1, "guests": guests}

    async def write(connection: Any) -> None:
        await connection.execute(host_sample.insert().values(**row))

    await world.database.write(write)


async def test_the_operation_is_named_as_the_host_calls_its_guest(engine: Engine) -> None:
    world, host, guest_id = engine.world, await engine.world.host(), new_id()
    await heard(world, host, guest_id, "Old VM")
    error = await engine.refusal(ImportVm(host_id=host, guest_id=guest_id))
    assert (error.code, type(error)) == ("VM_NAME_UNFIT", Invalid)
    accepted = await ask(engine, host, guest_id, name="old-vm")
    (operation,) = await engine.rows("operation")
    assert (operation["target_name"], operation["target_id"]) == ("Old VM", guest_id)
    assert accepted.step.name == "old-vm"


async def test_the_name_that_a_guest_would_get_is_checked_before_anything_begins(
    engine: Engine,
) -> None:
    world, host, guest_id = engine.world, await engine.world.host(), new_id()
    await world.vm("old")
    await heard(world, host, guest_id, "old")
    error = await engine.refusal(ImportVm(host_id=host, guest_id=guest_id))
    assert error.code == "NAME_TAKEN"
    await engine.act(ImportVm(host_id=host, guest_id=guest_id, name="older"))


async def test_a_guest_is_imported_by_one_operation_at_a_time(taken: Import) -> None:
    step = taken.step
    again = ImportVm(host_id=step.host.host_id, guest_id=step.guest_id)
    error = await taken.engine.refusal(again)
    assert (error.code, error.context["holder_operation_id"]) == (
        "OBJECT_BUSY",
        str(step.operation_id),
    )
    locks = await taken.engine.rows("entity_lock")
    assert sorted(columns(locks, "entity_type", "exclusive")) == [("host", None), ("vm", 1)]
    other = ImportVm(host_id=step.host.host_id, guest_id=new_id())
    await taken.engine.act(other)


async def test_a_recovery_takes_the_host_over_from_imports_and_their_rows_go_with_them(
    taken: Import,
) -> None:
    await taken.record()
    world, host = taken.world, taken.step.host.host_id
    second = await ask(taken.engine, host, new_id())
    await world.put("host", host, state="connecting")
    await taken.engine.act(RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1"))
    rows = {row["id"]: row for row in await taken.engine.rows("operation")}
    for step in (taken.step, second.step):
        ended = rows[step.operation_id]
        assert (ended["state"], ended["reason_code"]) == ("cancelled", "superseded")
    assert rows[taken.step.operation_id]["summary"].endswith("left on h1, and is no VM of ours")
    assert (await taken.engine.rows("vm"), await taken.engine.rows("vm_run")) == ([], [])
    assert await taken.reserved() == 0
    assert await taken.records.withdraw(taken.step), "its mark may go, should it have one"
    with pytest.raises(Superseded):
        await second.record()


async def test_a_vm_under_import_is_neither_started_nor_deleted(taken: Import) -> None:
    await taken.record(state=DomainState.SHUTOFF)
    vm = taken.step.guest_id
    for params in (StartVm(vm_id=vm), DeleteVm(vm_id=vm)):
        assert (await taken.engine.refusal(params)).code == "OBJECT_BUSY"

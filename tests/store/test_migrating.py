"""A run that moves names both hosts, and nothing but a reading or a proof of each lets it go."""

from datetime import timedelta
from uuid import UUID

import pytest

from activities.migrating import ReserveOrder
from domain.inventory import RunState
from engine.records.migrating import MigrationRecords
from store import edits, hosts, incidents, licences, migrating, runs
from store.database import Database
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.world import World

pytestmark = pytest.mark.store


class Scene:
    """A VM that moves from h1 to h2."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def build(self) -> "Scene":
        """Begin to move it."""
        world = self.world
        self.source, self.target = await world.host("h1"), await world.host("h2")
        self.vm = await world.vm(memory_mib=256)
        self.run = (await world.running(self.vm, self.source))["id"]
        self.mover = await world.operation(self.vm, kind="vm.migrate")
        begun = await world.do(migrating.begin, self.run, self.target, 1, self.mover)
        assert begun is not None
        return self

    async def reserved(self) -> tuple[int, int]:
        """Memory that both hosts have promised."""
        rows = [await self.world.get("host", each) for each in (self.source, self.target)]
        return rows[0]["memory_reserved_mib"], rows[1]["memory_reserved_mib"]

    async def gone(self, source: UUID | None = None, target: UUID | None = None) -> bool:
        """Close it as running nowhere."""
        mine = (self.run, self.mover, self.world.now)
        proofs = {"source_certificate": source, "target_certificate": target}
        return await self.world.do(migrating.gone, *mine, **proofs)

    async def active(self) -> Row | None:
        """The VM's run."""
        return await self.world.do(runs.active_run, self.vm)


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await Scene(await World(database).build()).build()


async def test_a_migrating_run_holds_memory_on_both_hosts_and_the_next_generation(
    scene: Scene,
) -> None:
    run = await scene.world.run(scene.run)
    assert (run["state"], run["target_generation"]) == ("migrating", run["generation"] + 1)
    assert await scene.reserved() == (256, 256)
    assert (await scene.world.get("vm", scene.vm))["generation"] == run["target_generation"]
    assert await scene.world.do(licences.at_stake) == {scene.source, scene.target}
    here = await scene.world.do(edits.copies_on, scene.target)
    assert [row["state"] for row in here] == ["migrating"]


async def test_nothing_else_closes_stops_or_loses_a_migrating_run(scene: Scene) -> None:
    world = scene.world
    assert not await world.do(runs.end, scene.run, "gone", world.now)
    assert not await world.do(runs.begin_stop, scene.run)
    certificate = await world.certificate(scene.source)
    assert not await world.do(runs.lose, scene.run, certificate, world.now)
    assert await world.do(
        runs.place, scene.vm, scene.target, 1, await world.operation(scene.vm), world.now
    ) is None  # fmt: skip
    assert (await world.run(scene.run))["state"] == "migrating"


async def test_what_stayed_gives_the_targets_memory_back(scene: Scene) -> None:
    mine = (scene.run, scene.mover)
    assert await scene.world.do(migrating.stayed, *mine, certificate_id=None)
    run = await scene.world.run(scene.run)
    assert (run["state"], run["target_host_id"], run["moved_by"]) == ("running", None, None)
    assert await scene.reserved() == (256, 0)


async def test_what_arrived_is_a_new_run_on_its_target(scene: Scene) -> None:
    mine = (scene.run, scene.mover)
    made = await scene.world.do(migrating.arrived, *mine, 2, scene.world.now)
    assert made is not None
    run = await scene.active()
    assert run is not None
    assert (run["host_id"], run["generation"], run["state"]) == (scene.target, 2, "running")
    old = await scene.world.run(scene.run)
    assert (old["state"], old["end_reason"]) == ("ended", migrating.ARRIVED)
    assert await scene.reserved() == (0, 256)
    assert await scene.world.do(migrating.arrived, *mine, 2, scene.world.now) is None


async def test_of_two_dead_hosts_each_has_a_lost_run_that_a_start_must_be_licensed_for(
    scene: Scene,
) -> None:
    proofs = [await scene.world.certificate(host) for host in (scene.source, scene.target)]
    assert await scene.gone(*proofs)
    assert await scene.active() is None
    assert await scene.reserved() == (0, 0)
    other = await scene.world.host("h3")
    starter = await scene.world.operation(scene.vm)
    place = (scene.vm, other, 1, starter, scene.world.now)
    run = await scene.world.do(runs.place, *place, licence_id=proofs[0])
    assert run is not None
    await scene.world.put("death_certificate", proofs[1], state="void", valid=None)
    assert not await scene.world.do(runs.begin_start, run["id"], starter)


async def test_of_two_dead_hosts_the_one_proven_last_has_the_lost_vm_in_its_incident(
    scene: Scene,
) -> None:
    world = scene.world
    proofs = [await world.certificate(host) for host in (scene.source, scene.target)]
    later = world.now + timedelta(seconds=5)
    await world.put("death_certificate", proofs[0], issued_at=later)
    assert await scene.gone(*proofs)
    found = []
    for host in (scene.source, scene.target):
        proof = await world.do(incidents.valid_certificate, host, 1)
        assert proof is not None
        lost = await world.do(incidents.runs_lost, proof["incident_id"])
        found.append([run["vm_id"] for run in lost])
    assert found == [[scene.vm], []]


async def test_of_two_hosts_proven_dead_at_once_only_one_has_the_lost_vm_in_its_incident(
    scene: Scene,
) -> None:
    world = scene.world
    proofs = [await world.certificate(host) for host in (scene.source, scene.target)]
    for each in proofs:
        await world.put("death_certificate", each, issued_at=world.now)
    assert await scene.gone(*proofs)
    found = []
    for host in (scene.source, scene.target):
        proof = await world.do(incidents.valid_certificate, host, 1)
        assert proof is not None
        found.append(len(await world.do(incidents.runs_lost, proof["incident_id"])))
    assert sorted(found) == [0, 1]


async def test_a_certificate_of_another_host_epoch_or_that_is_void_settles_nothing(
    scene: Scene,
) -> None:
    other = await scene.world.certificate(await scene.world.host("h3"))
    void = await scene.world.certificate(scene.source)
    await scene.world.put("death_certificate", void, state="void", valid=None)
    for wrong in (other, void, new_id()):
        assert not await scene.gone(source=wrong)
        stayed = (scene.run, scene.mover)
        assert not await scene.world.do(migrating.stayed, *stayed, certificate_id=wrong)
    assert (await scene.world.run(scene.run))["state"] == RunState.MIGRATING
    assert await scene.reserved() == (256, 256)


async def test_another_operation_settles_nothing(scene: Scene) -> None:
    other = await scene.world.operation(scene.vm, kind="vm.migrate")
    assert not await scene.world.do(migrating.stayed, scene.run, other, certificate_id=None)
    assert await scene.world.do(migrating.arrived, scene.run, other, 2, scene.world.now) is None
    assert not await scene.world.do(migrating.claim, scene.run, other)


@pytest.mark.parametrize("which", ["source", "target"])
async def test_libvirt_is_told_only_while_both_hosts_are_in_service(
    scene: Scene, which: str
) -> None:
    assert await scene.world.do(migrating.claim, scene.run, scene.mover)
    await scene.world.put("host", getattr(scene, which), state="non_responsive")
    assert not await scene.world.do(migrating.claim, scene.run, scene.mover)


async def test_a_target_without_room_leaves_the_run_as_it_was(database: Database) -> None:
    world = await World(database).build()
    source, target = await world.host("h1"), await world.host("h2", memory_mib=100)
    vm = await world.vm(memory_mib=256)
    run = (await world.running(vm, source))["id"]
    mover = await world.operation(vm, kind="vm.migrate")
    assert await world.do(migrating.begin, run, target, 1, mover) is None
    assert await world.do(migrating.begin, run, source, 1, mover) is None, "to where it is"
    assert (await world.run(run))["state"] == "running"
    assert (await world.get("host", source))["memory_reserved_mib"] == 256
    assert (await world.get("vm", vm))["generation"] == 1


async def test_a_reconciled_target_takes_its_arriving_run_into_its_new_epoch(scene: Scene) -> None:
    assert await scene.world.do(migrating.follow, scene.target, 7) == 1
    assert (await scene.world.run(scene.run))["target_epoch"] == 7
    assert not await scene.world.do(
        hosts.reserve, scene.target, 7, {"memory_mib": 1, "vcpus": 1}
    ), "the host has not"


@pytest.mark.parametrize(
    "edited", [{"memory_mib": 16, "vcpus": 1}, {"memory_mib": 800, "vcpus": 9}]
)
async def test_a_target_is_chosen_for_what_the_run_has_taken_whatever_was_edited_since(
    engine: Engine, edited: Row
) -> None:
    world = engine.world
    await world.put("cluster", world.cluster_id, vcpu_overcommit=1.0)
    await world.host("h2", memory_mib=100, cpus=64)
    await world.host("h3", memory_mib=500, cpus=1)
    fitting = await world.host("h4", memory_mib=500, cpus=2)
    vm_id = await world.vm(memory_mib=256, vcpus=2)
    await world.running(vm_id, await world.host("h1", cpus=4))
    await world.put("vm", vm_id, **edited)
    mover = await world.operation(vm_id, kind="vm.migrate")
    await world.lock(vm_id, mover)
    order = ReserveOrder(operation_id=mover, attempt=1, vm_id=vm_id, host_id=None)
    reserved = await MigrationRecords(world.database, engine.backend).reserve(order)
    assert reserved.migration is not None, reserved.no_room
    assert reserved.migration.target.host_id == fitting

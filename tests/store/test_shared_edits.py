"""What two sides can change: groups through their VMs, and circles closed by many edits at once."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from engine import facts
from engine.actions.affinity import CreateAffinityGroup, DeleteAffinityGroup, EditAffinityGroup
from engine.actions.vm_config import EditVm
from store import inventory, vms
from tests.store.engine_room import Engine, columns
from tests.store.many import Many, batch

pytestmark = pytest.mark.store


async def create(engine: Engine, name: str, *members: UUID) -> UUID:
    await engine.act(
        CreateAffinityGroup(
            cluster_id=engine.world.cluster_id, name=name, together=True, vm_ids=members
        )
    )
    (group_id,) = [row["id"] for row in await engine.rows("affinity_group") if row["name"] == name]
    found: UUID = group_id
    return found


async def versions(engine: Engine, *vm_ids: UUID) -> list[int]:
    return [(await engine.world.get("vm", vm_id))["version"] for vm_id in vm_ids]


async def test_a_vm_edit_does_not_undo_a_group_edit_that_its_caller_never_saw(
    engine: Engine,
) -> None:
    db = await engine.world.vm("db")
    near, far = await create(engine, "near"), await create(engine, "far")
    (seen,) = await versions(engine, db)
    await engine.act(EditAffinityGroup(affinity_group_id=far, vm_ids=(db,)))
    late = EditVm(vm_id=db, expected_version=seen, affinity_group_ids=(near,))
    assert (await engine.refusal(late)).code == "VERSION_STALE"
    assert columns(await engine.rows("affinity_vm"), "group_id") == [far]


async def test_only_vms_that_come_into_a_group_or_go_out_are_new_versions(engine: Engine) -> None:
    stays, goes, comes, other = [await engine.world.vm(name) for name in ("s", "g", "c", "o")]
    group = await create(engine, "near", stays, goes)
    first = await versions(engine, stays, goes, comes, other)
    await engine.act(EditAffinityGroup(affinity_group_id=group, vm_ids=(stays, comes)))
    second = await versions(engine, stays, goes, comes, other)
    assert [after - before for before, after in zip(first, second, strict=True)] == [0, 1, 1, 0]
    await engine.act(EditAffinityGroup(affinity_group_id=group, name="close"))
    assert await versions(engine, stays, goes, comes, other) == second
    await engine.act(DeleteAffinityGroup(affinity_group_id=group))
    third = await versions(engine, stays, goes, comes, other)
    assert [after - before for before, after in zip(second, third, strict=True)] == [1, 0, 1, 0]


async def test_a_batch_edits_a_group_and_then_a_vm_that_it_put_in(engine: Engine) -> None:
    db = await engine.world.vm("db")
    group = await create(engine, "near")
    put_in = EditAffinityGroup(affinity_group_id=group, vm_ids=(db,))
    receipt = await batch(engine, [put_in, EditVm(vm_id=db, vcpus=4)])
    assert (receipt.accepted, receipt.refused) == (2, 0)
    assert (await engine.world.get("vm", db))["vcpus"] == 4


async def test_many_edits_of_dependencies_read_only_what_they_lead_to_and_that_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = engine.world
    base = await world.vm("base")
    middle = await world.vm("middle", depends_on=(base,))
    waiting = await world.vm("waiting", depends_on=(middle,))
    leaves = [await world.vm(f"leaf{number}", depends_on=(waiting,)) for number in range(5)]
    read: list[UUID] = []
    real = vms.dependencies_of

    async def noted(
        connection: AsyncConnection, vm_ids: Sequence[UUID]
    ) -> dict[UUID, tuple[UUID, ...]]:
        read.extend(vm_ids)
        return await real(connection, vm_ids)

    monkeypatch.setattr(vms, "dependencies_of", noted)
    receipt = await batch(engine, [EditVm(vm_id=leaf, depends_on=(middle,)) for leaf in leaves])
    assert receipt.accepted == len(leaves)
    assert sorted(read) == sorted((base, middle))


@pytest.mark.parametrize("length", [2, 3, 2 * facts.LEVELS_MAX], ids=str)
@pytest.mark.parametrize("turn", [1, -1], ids=["first to last", "last to first"])
async def test_edits_of_one_batch_that_close_a_circle_are_not_all_accepted(
    engine: Engine, length: int, turn: int
) -> None:
    ring = [await engine.world.vm(f"vm{number:02}") for number in range(length)]
    edits: Many = [
        EditVm(vm_id=ring[number - 1], depends_on=(ring[number],))
        for number in range(length)[::turn]
    ]
    receipt = await batch(engine, edits)
    assert (receipt.accepted, receipt.refused) == (length - 1, 1)
    assert len(await engine.rows("vm_dependency")) == length - 1


async def test_a_long_chain_is_read_whole_and_still_closes_no_circle(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = last = await engine.world.vm("vm00")
    for number in range(1, 2 * facts.LEVELS_MAX):
        last = await engine.world.vm(f"vm{number:02}", depends_on=(last,))
    whole: list[int] = []
    real = inventory.dependencies

    async def noted(connection: AsyncConnection) -> dict[UUID, tuple[UUID, ...]]:
        found = await real(connection)
        whole.append(len(found))
        return found

    monkeypatch.setattr(inventory, "dependencies", noted)
    error = await engine.refusal(EditVm(vm_id=first, depends_on=(last,)))
    assert (error.code, error.context["vms"]) == ("DEPENDENCY_CYCLE", 2 * facts.LEVELS_MAX)
    assert whole == [2 * facts.LEVELS_MAX - 1]

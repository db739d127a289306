"""Locks in the database: one owner, many who share, and never both."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.locks import Lock, exclusive, in_the_way, shared
from store import locks
from store.ids import new_id
from tests.store.world import World

pytestmark = pytest.mark.store
Taking = Callable[[AsyncConnection], Awaitable[bool]]


def taking(world: World, lock: Lock, operation_id: UUID) -> Taking:
    """Look, and take the lock if nobody is in the way: one transaction."""

    async def take(connection: AsyncConnection) -> bool:
        held = (await locks.held(connection, [lock.entity])).get(lock.entity, [])
        if in_the_way([lock], held):
            return False
        await locks.take(connection, [locks.row_of(lock, operation_id, world.now)])
        return True

    return take


@pytest.mark.parametrize("mode", [exclusive, shared], ids=["to-own", "to-share"])
async def test_of_many_who_want_one_vm_one_owns_it_or_all_share_it(
    world: World, mode: Callable[[str, UUID], Lock]
) -> None:
    vm, owners = await world.vm(), [await world.operation() for _ in range(5)]
    won = await world.together(*(taking(world, mode("vm", vm), owner) for owner in owners))
    assert sum(won) == (1 if mode is exclusive else 5)
    found = await world.do(locks.held, [("vm", vm)])
    expected = {owner for owner, got in zip(owners, won, strict=True) if got}
    assert {held.operation_id for held in found["vm", vm]} == expected


async def test_who_shares_and_who_owns_never_meet(world: World) -> None:
    for _ in range(4):
        vm, owners = await world.vm(f"vm-{new_id()}"), [await world.operation() for _ in range(6)]
        modes = [exclusive, shared, shared, exclusive, shared, shared]
        won = await world.together(
            *(
                taking(world, mode("vm", vm), owner)
                for mode, owner in zip(modes, owners, strict=True)
            )
        )
        winners = {mode for mode, got in zip(modes, won, strict=True) if got}
        assert winners in ({exclusive}, {shared})


async def test_a_second_owner_breaks_a_constraint_whatever_the_code_believes(world: World) -> None:
    vm = await world.vm()
    await world.take("vm", vm, await world.operation())
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each driver has its own
        await world.take("vm", vm, await world.operation())
    assert isinstance(caught.value.__cause__ or caught.value, IntegrityError)


async def test_a_lock_tells_its_operations_kind_state_and_generation(world: World) -> None:
    vm, operation = await world.vm(), await world.operation()
    assert await world.do(locks.holder, "vm", vm) is None
    row = locks.row_of(exclusive("vm", vm), operation, world.now, generation=3)
    await world.do(locks.take, [row])
    held = await world.do(locks.holder, "vm", vm)
    assert held is not None
    assert (held.operation_id, held.kind, held.state) == (operation, "vm.start", "pending")
    assert held.generation == 3
    assert await world.do(locks.holds, "vm", vm, operation, 3)
    assert not await world.do(locks.holds, "vm", vm, await world.operation(), 3)
    assert await world.do(locks.of_operation, operation) == [held]


async def test_a_lock_that_passed_on_to_a_later_try_is_not_held_by_an_earlier_one(
    world: World,
) -> None:
    vm, operation = await world.vm(), await world.operation()
    await world.take("vm", vm, operation)
    assert await world.do(locks.holds, "vm", vm, operation, 1)
    assert [await world.do(locks.pass_on, operation, n) for n in (2, 2, 1)] == [1, 0, 0]
    held = [await world.do(locks.holds, "vm", vm, operation, n) for n in (1, 2, 3)]
    assert held == [False, True, False]


async def test_an_operation_frees_its_own_locks_all_or_of_one_kind(world: World) -> None:
    mine, other = await world.operation(), await world.operation()
    for entity, owner in (("vm", mine), ("vm", mine), ("host", mine), ("vm", other)):
        await world.take(entity, new_id(), owner)
    assert await world.do(locks.free, mine, "host") == 1
    assert await world.do(locks.free, mine) == 2
    assert await world.do(locks.free, mine) == 0
    assert await world.do(locks.free, other) == 1


async def test_locks_on_a_thousand_entities_are_found_at_once(world: World) -> None:
    operation, entities = await world.operation(), [("vm", new_id()) for _ in range(1000)]
    rows = [locks.row_of(exclusive(*entity), operation, world.now) for entity in entities]
    await world.do(locks.take, rows)
    found = await world.do(partial(locks.held), [*entities, ("vm", new_id())])
    assert set(found) == set(entities)

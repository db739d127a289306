"""Locks on entities: what an operation wants, and what keeps it from getting it.

An operation takes all its locks at once or none, always in the same order, so two operations can
wait for each other only through a third party that the database detects. Many may share an entity,
one alone may own it; recovery takes what it needs from operations whose host is dead.
"""

from collections.abc import Iterable
from enum import StrEnum
from uuid import UUID

from domain.base import Frozen


class LockMode(StrEnum):
    """How an operation holds an entity."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Lock(Frozen):
    """One entity that an operation wants for itself, or wants unchanged."""

    entity_type: str
    entity_id: UUID
    mode: LockMode = LockMode.EXCLUSIVE

    @property
    def entity(self) -> tuple[str, UUID]:
        """What is locked."""
        return self.entity_type, self.entity_id


class Held(Frozen):
    """A lock that an open operation holds; its generation is the try that holds it."""

    lock: Lock
    operation_id: UUID
    kind: str
    state: str
    generation: int = 1


def exclusive(entity_type: str, entity_id: UUID) -> Lock:
    """The wish to own an entity."""
    return Lock(entity_type=entity_type, entity_id=entity_id)


def shared(entity_type: str, entity_id: UUID) -> Lock:
    """The wish that nobody owns an entity meanwhile."""
    return Lock(entity_type=entity_type, entity_id=entity_id, mode=LockMode.SHARED)


def in_order(locks: Iterable[Lock]) -> tuple[Lock, ...]:
    """Each entity once, the stronger mode winning, in the order in which everybody takes them."""
    wanted = tuple(locks)
    if len(wanted) < 2:
        return wanted
    strongest: dict[tuple[str, UUID], Lock] = {}
    for lock in wanted:
        known = strongest.get(lock.entity)
        if known is None or known.mode is LockMode.SHARED:
            strongest[lock.entity] = lock
    return tuple(sorted(strongest.values(), key=lambda lock: lock.entity))


def in_the_way(wanted: Iterable[Lock], held: Iterable[Held]) -> tuple[Held, ...]:
    """Locks of others that keep these from being taken, in the order of the entities."""
    modes = {lock.entity: lock.mode for lock in wanted}
    both_share = (LockMode.SHARED, LockMode.SHARED)
    found = [
        other
        for other in held
        if other.lock.entity in modes and (modes[other.lock.entity], other.lock.mode) != both_share
    ]
    return tuple(sorted(found, key=lambda other: (other.lock.entity, other.operation_id)))

"""What an action is: parameters, a check against the database, and the operation it becomes.

An action declares its parameter model, its kind and its workflow. `accept` runs inside the one
transaction that also writes the operation: it validates against what it reads there and returns
what the operation needs, or raises the refusal. An action without a workflow does its whole work
there and its operation is closed in the same transaction.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.context import ActionContext
from domain.errors import NotFound
from domain.operations import Order
from store import inventory
from store.rows import Row


class Params(Frozen):
    """What a caller says; the type is what finds the action."""


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Tx:
    """The transaction an action is accepted in."""

    connection: AsyncConnection
    now: datetime
    operation_id: UUID
    context: ActionContext


@dataclass(frozen=True)
class Accepted:
    """What an accepted action needs written."""

    target_type: str
    target_id: UUID
    target_name: str
    cluster_id: UUID | None = None
    locks: tuple[tuple[str, UUID], ...] = ()
    order: Order | None = None
    summary: str = ""
    incident_id: UUID | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Action(ABC, Generic[P]):
    """One kind of change. Instances hold only what they were wired with."""

    params: ClassVar[type[Params]]
    kind: ClassVar[str]
    workflow: ClassVar[str | None] = None

    @abstractmethod
    async def accept(self, tx: Tx, params: P) -> Accepted:
        """Check the action and say what is to be written; raises Refused to refuse."""


async def existing(tx: Tx, entity: str, entity_id: UUID) -> Row:
    """A row that has to be there; NotFound names it."""
    row = await inventory.get(tx.connection, entity, entity_id)
    if row is None:
        word = entity.replace("_", " ")
        raise NotFound(
            f"{entity.upper()}_NOT_FOUND",
            f"there is no {word} {entity_id}",
            next_step=f"list the {word}s and use one of their ids",
            id=str(entity_id),
        )
    return row

"""What a query is: parameters in, views out, read in one consistent transaction."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.errors import NotFound


class QueryParams(Frozen):
    """What a caller asks; the type is what finds the query."""


P = TypeVar("P", bound=QueryParams)
R = TypeVar("R")


class Query(ABC, Generic[P, R]):
    """One kind of question. `public` ones are answered without authentication."""

    params: ClassVar[type[QueryParams]]
    public: ClassVar[bool] = False

    @abstractmethod
    async def answer(self, connection: AsyncConnection, params: P, now: datetime) -> R:
        """Read the answer; NotFound when it asks for one object that is not there."""


class FixedQuery(Query[P, R]):
    """A question that the engine answers by itself, also while its database is away."""

    @abstractmethod
    def tell(self, params: P) -> R:
        """The answer."""

    async def answer(self, connection: AsyncConnection, params: P, now: datetime) -> R:
        """The same."""
        return self.tell(params)


def missing(word: str, entity_id: UUID) -> NotFound:
    """The refusal for an id that names nothing."""
    return NotFound(
        f"{word.upper().replace(' ', '_')}_NOT_FOUND",
        f"there is no {word} {entity_id}",
        next_step=f"list the {word}s and use one of their ids",
        id=str(entity_id),
    )

"""Lists by pages: what a caller may ask of each, and the cursor that leads from page to page.

A cursor is the sort key of a page's last row, in letters that a URL takes as they are. It is not
secret and not signed: whoever makes one up gets another page of the same list, or a refusal.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Invalid
from engine.queries.base import QueryParams
from engine.views import Page
from store import pages
from store.pages import List, Named, Slice
from store.rows import Row

V = TypeVar("V")
LIMIT = 100
LIMIT_MAX = 500
CURSOR_MAX = 400
"""Characters: more than the longest sort key needs."""

Text = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
"""PostgreSQL takes no NUL in text, not even to look for it."""

Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC)),
]
"""A time with its zone that is still one in every other zone."""

Key: TypeAlias = TypeAdapter[Any]
NAME_KEY: Key = TypeAdapter(
    tuple[Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")], UUID]
)
"""The sort key of everything that has a name."""

TIME_KEY: Key = TypeAdapter(tuple[Moment, UUID])
"""The sort key of events."""

ID_KEY: Key = TypeAdapter(tuple[UUID])
"""The sort key of what is listed by age: ids grow with time."""


class PageParams(QueryParams):
    """Which page of a list, and whether its total is wanted: counting costs a statement more."""

    cursor: str | None = Field(default=None, max_length=CURSOR_MAX)
    limit: int = Field(default=LIMIT, ge=1, le=LIMIT_MAX)
    count: bool = False


class NamedParams(PageParams):
    """Which names: exactly this, beginning with this, with this somewhere in them."""

    name: Text | None = None
    name_prefix: Text | None = None
    name_contains: Text | None = None

    @property
    def named(self) -> Named:
        """The same for the store."""
        return Named(self.name, self.name_prefix, self.name_contains)


def written(*key: Any) -> str:
    """The cursor that stands for a sort key."""
    return base64.urlsafe_b64encode(TypeAdapter(Any).dump_json(key)).decode().rstrip("=")


def read(cursor: str | None, key: Key) -> tuple[Any, ...] | None:
    """The sort key that a cursor stands for; Invalid (CURSOR_INVALID) for one that is none."""
    if cursor is None:
        return None
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found: tuple[Any, ...] = key.validate_json(plain)
    except (ValueError, ValidationError) as error:
        raise Invalid(
            "CURSOR_INVALID",
            f"{cursor[:40]!r} is no cursor of this list",
            next_step="take `next_cursor` of the page before, or begin without a cursor",
        ) from error
    return found


async def listed(
    connection: AsyncConnection, whole: List, params: PageParams, key: Key
) -> tuple[list[Row], str | None, int | None]:
    """The rows of the page that was asked for, the next page's cursor, and the total if wanted."""
    part = Slice(params.limit, read(params.cursor, key))
    rows, more = await pages.page(connection, whole, part)
    last = written(*(rows[-1][key.name] for key in whole.keys)) if more else None
    return rows, last, await pages.total(connection, whole) if params.count else None


async def shown(
    connection: AsyncConnection,
    whole: List,
    params: PageParams,
    key: Key,
    view: Callable[[Row], V],
) -> Page[V]:
    """The same as a page of views, each made from its row alone."""
    rows, cursor, total = await listed(connection, whole, params, key)
    return Page(items=tuple(view(row) for row in rows), next_cursor=cursor, total=total)

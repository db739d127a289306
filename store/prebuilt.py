"""Statements that are built once: most of a short statement's time would be building it anew.

SQLAlchemy puts a statement together from a dozen objects and walks through all of them to find what
it has compiled before; that takes several times as long as running it. So a statement that is run
often is a function that is called once, with a placeholder in each value's place:

    @prebuilt
    def _get(run_id: UUID, /) -> sa.Select[Any]:
        return sa.select(vm_run).where(vm_run.c.id == run_id)

    async def get(connection: AsyncConnection, run_id: UUID) -> Row | None:
        return await one(connection, _get(run_id))

Values stand before the slash and are given anew each time. What shapes the text stands behind a
star, is given by name, and makes one statement for each combination that is ever asked for.

Invariants  A builder only puts its values into the statement: it cannot look at them, cut them or
            ask whether they are None, since it does not have them. `tests/unit/test_prebuilt.py`
            refuses one that tries. A placeholder has the type of the column it stands beside; where
            it stands beside none, `like` names one.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import sqlalchemy as sa

P = ParamSpec("P")
T = TypeVar("T")


class Bound(NamedTuple):
    """A statement and the values of one run of it."""

    statement: sa.Executable
    values: dict[str, Any]


NAMES = tuple(f"given_{number}" for number in range(256))
"""Of placeholders. No column may have such a name: SQLAlchemy would take the value for its own."""


def prebuilt(build: Callable[P, sa.Executable]) -> Callable[P, Bound]:
    """Call `build` once for each shape, and bind values to what it gave; see the module."""
    built: dict[tuple[Any, ...], sa.Executable] = {}

    @wraps(build)
    def bound(*values: P.args, **shape: P.kwargs) -> Bound:
        key = (len(values), *shape.items())
        statement = built.get(key)
        if statement is None:
            places: Any = [sa.bindparam(name) for name in NAMES[: len(values)]]
            statement = built[key] = build(*places, **shape)
        return Bound(statement, dict(zip(NAMES, values, strict=False)))

    return bound


def among(column: sa.Column[Any], values: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Whether a column has one of values that are known when the statement is built.

    Those of an ordinary IN list are written into the text anew at each run.
    """
    return column.in_([sa.literal(value, column.type) for value in values])


def like(value: T, column: sa.Column[Any]) -> sa.ColumnElement[T]:
    """A value as this column has it, where nothing beside it says so."""
    return sa.type_coerce(value, column.type)

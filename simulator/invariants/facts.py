"""What the checks look at: rows of the database beside the data centre as it is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from domain.base import Frozen
from domain.operations import OPEN_STATES
from simulator.rows import ALL, Rows, Wanted
from simulator.world.centre import DataCentre

OPEN = tuple(state.value for state in OPEN_STATES)
TABLES = (
    *("cluster", "host", "vm", "vm_run", "operation", "step", "entity_lock", "event"),
    *("incident", "death_certificate", "outbox", "planned_stop", "made_room", "soft_step"),
)
Row = dict[str, Any]


class Part(NamedTuple):
    """Some rows of a table, and some columns of them."""

    columns: Wanted = None
    where: str = ALL


WHOLE = Part()


@dataclass(frozen=True)
class Facts:
    """Every row that a check looks at, read in one transaction."""

    rows: dict[str, list[Row]]

    def by_id(self, table: str) -> dict[UUID, Row]:
        """The rows of a table by id."""
        return {row["id"]: row for row in self.rows[table]}

    @property
    def active(self) -> list[Row]:
        """Runs that may have a process."""
        return [run for run in self.rows["vm_run"] if run["active"] == 1]


Check = Callable[[DataCentre, Facts], Iterator[str]]
"""Gives one sentence for each way in which it is broken."""


class Violation(Frozen):
    """Something that must never be, and was.

    `outside` says why nobody promised better; None: it lies inside of the promised fault model.
    """

    at_s: float
    check: str
    sentence: str
    outside: str | None = None

    def __str__(self) -> str:
        where = f" (outside of the promise: {self.outside})" if self.outside else ""
        return f"{self.at_s:.3f} s  {self.check}: {self.sentence}{where}"


def facts_of(
    rows: Rows, tables: Iterable[str] = TABLES, parts: Mapping[str, Part] | None = None
) -> Facts:
    """Read tables, past every process of the engine: whole, or the part that is named."""
    of = {table: (parts or {}).get(table, WHOLE) for table in tables}
    return Facts(
        {table: rows.table(table, part.where, columns=part.columns) for table, part in of.items()}
    )

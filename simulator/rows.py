"""The database as the simulation itself looks at it: past every process, and never changing it."""

import json
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from domain.operations import OPEN_STATES
from store.columns import metadata
from store.inline_sqlite import SharedMemory

OPEN = tuple(state.value for state in OPEN_STATES)
Row = dict[str, Any]
Found = tuple[Any, ...]
Columns = list[tuple[str, Any]]
Wanted = tuple[str, ...] | None
ALL = "1 = 1"


class Rows:
    """Rows as plain values, converted as the store converts them."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._dialect = sa.create_engine("sqlite://", json_deserializer=json.loads).dialect
        self._converters: dict[str, Columns] = {}
        self._known: dict[tuple[str, Wanted, str], dict[Found, Row]] = {}
        self._statements: dict[tuple[str, Wanted, str], tuple[str, Columns]] = {}

    def table(self, name: str, where: str = ALL, *values: Any, columns: Wanted = None) -> list[Row]:
        """Every row of a table that fits an SQL condition; not to be changed by whoever asks.

        `columns`: those that are asked for, else all.
        """
        key = (name, columns, where)
        if key not in self._statements:
            self._statements[key] = self._statement(*key)
        statement, asked = self._statements[key]
        known = self._known.get(key, {})
        found: dict[Found, Row] = {}
        for raw in self._memory.raw.execute(statement, values):
            row = known.get(raw)
            found[raw] = _converted(asked, raw) if row is None else row
        # Rows are looked at much more often than they change: what one holds is converted once.
        self._known[key] = found
        return list(found.values())

    def _statement(self, name: str, columns: Wanted, where: str) -> tuple[str, Columns]:
        asked = [each for each in self._columns(name) if columns is None or each[0] in columns]
        names = ", ".join(f'"{column}"' for column, _convert in asked)
        return f"SELECT {names} FROM {name} WHERE {where}", asked

    def find(self, table: str, name: str) -> Row:
        """The row of that name."""
        (row,) = self.table(table, "name = ?", name)
        return row

    def operation(self, operation_id: UUID) -> Row:
        """One operation."""
        (row,) = self.table("operation", "id = ?", self._bound(operation_id))
        return row

    def ended(self, operation_id: UUID) -> bool:
        """Whether an operation has ended."""
        return self.operation(operation_id)["state"] not in OPEN

    def _bound(self, value: UUID) -> Any:
        kind = metadata.tables["operation"].c.id.type.dialect_impl(self._dialect)
        convert: Any = kind.bind_processor(self._dialect)
        return value if convert is None else convert(value)

    def _columns(self, table: str) -> Columns:
        if table not in self._converters:
            self._converters[table] = [
                (
                    column.name,
                    column.type.dialect_impl(self._dialect).result_processor(self._dialect, None),
                )
                for column in metadata.tables[table].columns
            ]
        return self._converters[table]


def _converted(columns: Columns, raw: Found) -> Row:
    return {
        column: value if convert is None else convert(value)
        for (column, convert), value in zip(columns, raw, strict=True)
    }

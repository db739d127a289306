"""Two rows in every table, made from the columns alone: new tables fill themselves.

The first row has a value in every column, the second leaves empty what may be empty. The values
are the ones that databases like to spoil: microseconds, all digits of a float, every byte, signs
outside of the basic plane, blanks at the end.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import sqlalchemy as sa

from store import schema, schema_ha
from store.columns import integer, metadata, time
from store.types import UtcDateTime

TABLES = (schema.cluster, schema_ha.incident)
START = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
DOCUMENT = {"z": [1, 2.5, None, True], "a": {"ü€😀": "Straße\n\\ '\"", "big": 2**53 - 1, "x": 1e-9}}
NUMBERS = (1, 2)

lock = sa.Table(
    "lock",
    sa.MetaData(),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("entity_id", sa.Uuid, primary_key=True),
    sa.Column("operation_id", sa.ForeignKey(metadata.tables["operation"].c.id), nullable=False),
    integer("generation"),
    time("acquired_at", nullable=False),
)
"""As it was until revision 0002; later its rows are in `entity_lock`."""

NOT_MOVING = dict.fromkeys(("target_host_id", "target_epoch", "target_generation", "moved_by"))

FIXED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "incident": ({"open": 1}, {}),
    "death_certificate": ({"state": "valid", "valid": 1}, {"state": "void"}),
    "vm_run": (
        {"active": 1, "state": "running", "lost_certificate_id": None, **NOT_MOVING},
        {"state": "lost", "lost_certificate_id": ("death_certificate", 2)},
    ),
    "vm_dependency": ({"depends_on_id": ("vm", 2)}, {"depends_on_id": ("vm", 1)}),
    "entity_lock": ({"exclusive": 1}, {}),
    "made_room": ({"priority": 1, "for_priority": 2}, {"priority": 1, "for_priority": 2}),
}
"""What the rules of a table ask for; a pair stands for the id of that row."""


def fill(connection: sa.Connection) -> dict[str, list[dict[str, Any]]]:
    """Insert the rows into the tables and columns that exist; what was inserted, by table."""
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    inserted = {}
    for table in (*metadata.sorted_tables, lock):
        if table.name in there:
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            rows = [_row(table, columns, number) for number in NUMBERS]
            for row in rows:
                connection.execute(table.insert().values(row))
            inserted[table.name] = rows
    return inserted


def contents(
    connection: sa.Connection, like: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """What now stands in the tables and columns of `like`, in the same order."""
    found = {}
    for name, rows in like.items():
        table = lock if name == "lock" else metadata.tables[name]
        columns = [table.c[column] for column in rows[0]]
        read = [dict(row) for row in connection.execute(sa.select(*columns)).mappings()]
        found[name] = sorted(read, key=lambda row: rows.index(row) if row in rows else -1)
    return found


def _row(table: sa.Table, columns: set[str], number: int) -> dict[str, Any]:
    chosen = [column for column in table.columns if column.name in columns]
    row = {column.name: _value(table, column, number) for column in chosen}
    for name, value in FIXED.get(table.name, ({}, {}))[number - 1].items():
        if name in columns:
            row[name] = _id(*value) if isinstance(value, tuple) else value
    return row


def _value(table: sa.Table, column: sa.Column[Any], number: int) -> Any:
    if number == 2 and column.nullable and not _own(table, column):
        return None
    for key in column.foreign_keys:
        if _own(table, column):
            return _id(table.name, 1) if number == 2 else None
        if key.column.name == "id":
            return _id(key.column.table.name, number)
    return _plain(table, column, number)


def _plain(table: sa.Table, column: sa.Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, sa.Uuid):
        return _id(table.name if column.name == "id" else f"{table.name}.{column.name}", number)
    if isinstance(kind, sa.String):
        return f"{number}ü😀 {table.name}"[: (kind.length or 64) - 1] + " "
    makers: dict[type[Any], Any] = {
        sa.Boolean: number == 1,
        sa.BigInteger: 2**40 + number,
        sa.Integer: number,
        sa.Float: number + 0.123456789012345,
        sa.LargeBinary: bytes(range(256)) * number,
        sa.JSON: DOCUMENT | {"n": number},
        UtcDateTime: START + timedelta(days=number),
    }
    return next(value for kind_of, value in makers.items() if isinstance(kind, kind_of))


def _own(table: sa.Table, column: sa.Column[Any]) -> bool:
    return any(key.column.table is table for key in column.foreign_keys)


def _id(name: str, number: int) -> UUID:
    return uuid5(NAMESPACE_OID, f"{name} {number}")

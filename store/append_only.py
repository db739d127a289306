"""The audit trail is append-only, and the database itself sees to it.

A row of `event` is never deleted, and never changed but for the one time that the sequencer gives
it its number. Triggers refuse everything else, whoever asks and by whatever program. MariaDB's
TRUNCATE asks no trigger: there the right to drop tables is what keeps events safe. SQLite's OR
REPLACE takes the row in the way of a new one out without asking the trigger for deletions, so there
whatever would meet another event's id, number or row id is refused before.

The statements are also in the migration that introduced them; a test compares the two.
"""

from typing import Any

import sqlalchemy as sa

REFUSAL = "events are append-only"


def guard(table: sa.Table) -> None:
    """Make creating `table` create its guards, too."""

    def create(target: sa.Table, connection: sa.Connection, **_: Any) -> None:
        names = [column.name for column in target.columns]
        for statement in guards(connection.dialect.name, names):
            connection.exec_driver_sql(statement)

    sa.event.listen(table, "after_create", create)


def guards(dialect: str, columns: list[str]) -> tuple[str, ...]:
    """The statements that protect a table `event` of these columns."""
    fixed = [name for name in columns if name != "seq"]
    if dialect == "sqlite":
        return _sqlite(fixed)
    return _postgresql(fixed) if dialect == "postgresql" else _mariadb(fixed)


def _sqlite(fixed: list[str]) -> tuple[str, ...]:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    return (
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event {refuse}",
        f"CREATE TRIGGER event_never_changed BEFORE UPDATE OF {_quoted(fixed)} ON event {refuse}",
        "CREATE TRIGGER event_never_moved BEFORE UPDATE ON event"
        f" WHEN NEW.rowid <> OLD.rowid {refuse}",
        f"CREATE TRIGGER event_never_replaced BEFORE INSERT ON event WHEN {_taken('id')}"
        f" OR {_taken('seq')} OR {_taken('rowid')} {refuse}",
        "CREATE TRIGGER event_numbered_once BEFORE UPDATE OF seq ON event"
        f" WHEN OLD.seq IS NOT NULL OR NEW.seq IS NULL OR {_taken('seq')} {refuse}",
    )


def _taken(column: str) -> str:
    return f"EXISTS (SELECT 1 FROM event WHERE {column} = NEW.{column})"


def _postgresql(fixed: list[str]) -> tuple[str, ...]:
    refuse = "EXECUTE FUNCTION event_is_append_only()"
    return (
        "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$",
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event FOR EACH ROW {refuse}",
        f"CREATE TRIGGER event_never_emptied BEFORE TRUNCATE ON event FOR EACH STATEMENT {refuse}",
        f"CREATE TRIGGER event_never_changed BEFORE UPDATE OF {_quoted(fixed)} ON event"
        f" FOR EACH ROW {refuse}",
        "CREATE TRIGGER event_numbered_once BEFORE UPDATE OF seq ON event FOR EACH ROW"
        f" WHEN (OLD.seq IS NOT NULL OR NEW.seq IS NULL) {refuse}",
    )


def _mariadb(fixed: list[str]) -> tuple[str, ...]:
    refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{REFUSAL}'"
    same = " AND ".join(f"NEW.`{name}` <=> OLD.`{name}`" for name in fixed)
    numbered = f"OLD.seq IS NULL AND NEW.seq IS NOT NULL AND {same}"
    return (
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event FOR EACH ROW {refuse}",
        "CREATE TRIGGER event_never_changed BEFORE UPDATE ON event FOR EACH ROW"
        f" IF NOT ({numbered}) THEN {refuse}; END IF",
    )


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)

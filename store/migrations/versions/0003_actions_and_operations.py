"""What the backend needs: networks, affinity, shared locks, batches, audit, archive.

Frozen once released: a later change of `store.schema` gets a revision of its own. The locks move to
a new table, since their primary key changes; every other change only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add tables and columns, and move the locks."""
    _networks()
    _affinity()
    _operations()
    _locks()
    _archive()
    _indexes()
    _guard_events()


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")


def _networks() -> None:
    op.create_table(
        "network",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("bridge", sa.String(length=15), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_network_cluster_id"),
        sa.PrimaryKeyConstraint("id", name="pk_network"),
        sa.UniqueConstraint("name", name="uq_network_name"),
    )
    op.create_table(
        "vm_nic",
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("network_id", sa.Uuid(), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("model", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name="fk_vm_nic_vm_id"),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name="fk_vm_nic_network_id"),
        sa.PrimaryKeyConstraint("vm_id", "position", name="pk_vm_nic"),
        sa.UniqueConstraint("mac", name="uq_vm_nic_mac"),
    )
    op.add_column("vm", sa.Column("budget_s", sa.Integer(), nullable=True))
    for table in ("cluster", "host", "vm"):
        op.add_column(table, sa.Column("removed_at", TIME, nullable=True))
    op.create_index("ix_vm_cluster", "vm", ["cluster_id", "name"])


def _affinity() -> None:
    op.create_table(
        "affinity_group",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("together", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("hard", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["cluster.id"], name="fk_affinity_group_cluster_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_affinity_group"),
        sa.UniqueConstraint("name", name="uq_affinity_group_name"),
    )
    for entity in ("vm", "host"):
        table = f"affinity_{entity}"
        op.create_table(
            table,
            sa.Column("group_id", sa.Uuid(), nullable=False),
            sa.Column(f"{entity}_id", sa.Uuid(), nullable=False),
            sa.ForeignKeyConstraint(
                ["group_id"], ["affinity_group.id"], name=f"fk_{table}_group_id"
            ),
            sa.ForeignKeyConstraint(
                [f"{entity}_id"], [f"{entity}.id"], name=f"fk_{table}_{entity}_id"
            ),
            sa.PrimaryKeyConstraint("group_id", f"{entity}_id", name=f"pk_{table}"),
        )
    op.create_index("ix_affinity_vm_vm", "affinity_vm", ["vm_id"])
    op.add_column("vm_run", sa.Column("gave_way", sa.JSON(none_as_null=True), nullable=True))


def _operations() -> None:
    no = sa.false()
    for column in (
        sa.Column("params", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("held", sa.Boolean(), server_default=no, nullable=False),
        sa.Column("progress_done", sa.Integer(), nullable=True),
        sa.Column("progress_total", sa.Integer(), nullable=True),
        sa.Column("lock_deadline_at", TIME, nullable=True),
        sa.Column("swept_at", TIME, nullable=True),
    ):
        op.add_column("operation", column)
    kind = sa.Column("kind", sa.String(length=16), server_default="start", nullable=False)
    op.add_column("outbox", kind)
    op.add_column("outbox", sa.Column("signal", sa.String(length=32), nullable=True))
    reason = sa.Column("reason", sa.String(length=1024), server_default="", nullable=False)
    op.add_column("event", reason)
    op.add_column("event", sa.Column("before", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("event", sa.Column("after", sa.JSON(none_as_null=True), nullable=True))
    op.create_index("ix_event_at", "event", ["at"])


def _locks() -> None:
    op.create_table(
        "entity_lock",
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("exclusive", sa.Integer(), nullable=True),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("acquired_at", TIME, nullable=False),
        sa.CheckConstraint(
            "exclusive IS NULL OR exclusive = 1", name=op.f("ck_entity_lock_exclusive")
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name="fk_entity_lock_operation_id"
        ),
        sa.PrimaryKeyConstraint("entity_type", "entity_id", "operation_id", name="pk_entity_lock"),
        sa.UniqueConstraint(
            "entity_type", "entity_id", "exclusive", name="uq_entity_lock_exclusive"
        ),
    )
    op.create_index("ix_entity_lock_operation", "entity_lock", ["operation_id"])
    names = ("entity_type", "entity_id", "operation_id", "generation", "acquired_at")
    old = sa.table("lock", *(sa.column(name) for name in names))
    new = sa.table("entity_lock", *(sa.column(name) for name in (*names, "exclusive")))
    held = sa.select(*(old.c[name] for name in names), sa.literal(1))
    op.execute(new.insert().from_select([*names, "exclusive"], held))
    op.drop_table("lock")


def _archive() -> None:
    op.create_table(
        "archive",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target_type", sa.String(length=16), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("archived_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_archive"),
    )
    op.create_index("ix_archive_target", "archive", ["target_type", "target_id"])
    op.create_index("ix_archive_parent", "archive", ["parent_id"])


def _indexes() -> None:
    for name, columns in (("state", ["state", "id"]), ("target", ["target_id", "id"])):
        op.drop_index(f"ix_operation_{name}", "operation")
        op.create_index(f"ix_operation_{name}", "operation", columns)
    op.create_index("ix_operation_kind", "operation", ["kind", "id"])
    op.create_index("ix_outbox_operation", "outbox", ["operation_id"])
    op.create_index("ix_vm_run_operation", "vm_run", ["operation_id"])
    for name, column in (
        ("type", "type"),
        ("principal", "principal"),
        ("correlation", "correlation_id"),
        ("operation", "operation_id"),
    ):
        op.create_index(f"ix_event_{name}", "event", [column, "at"])


REFUSAL = "events are append-only"
FIXED = (
    *("id", "type", "subject_type", "subject_id", "principal", "correlation_id", "operation_id"),
    *("reason", "before", "after", "data", "at"),
)
"""The columns of an event that nothing may change; `seq` is given once."""


def _guard_events() -> None:
    connection = op.get_bind()
    guards = {"sqlite": _sqlite_guards, "postgresql": _postgresql_guards}
    for statement in guards.get(connection.dialect.name, _mariadb_guards)():
        connection.exec_driver_sql(statement)


def _sqlite_guards() -> Sequence[str]:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    fixed = ", ".join(f'"{name}"' for name in FIXED)
    return (
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event {refuse}",
        f"CREATE TRIGGER event_never_changed BEFORE UPDATE OF {fixed} ON event {refuse}",
        "CREATE TRIGGER event_never_moved BEFORE UPDATE ON event"
        f" WHEN NEW.rowid <> OLD.rowid {refuse}",
        f"CREATE TRIGGER event_never_replaced BEFORE INSERT ON event WHEN {_taken('id')}"
        f" OR {_taken('seq')} OR {_taken('rowid')} {refuse}",
        "CREATE TRIGGER event_numbered_once BEFORE UPDATE OF seq ON event"
        f" WHEN OLD.seq IS NOT NULL OR NEW.seq IS NULL OR {_taken('seq')} {refuse}",
    )


def _taken(column: str) -> str:
    return f"EXISTS (SELECT 1 FROM event WHERE {column} = NEW.{column})"


def _postgresql_guards() -> Sequence[str]:
    refuse = "EXECUTE FUNCTION event_is_append_only()"
    fixed = ", ".join(f'"{name}"' for name in FIXED)
    return (
        "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$",
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event FOR EACH ROW {refuse}",
        f"CREATE TRIGGER event_never_emptied BEFORE TRUNCATE ON event FOR EACH STATEMENT {refuse}",
        f"CREATE TRIGGER event_never_changed BEFORE UPDATE OF {fixed} ON event"
        f" FOR EACH ROW {refuse}",
        "CREATE TRIGGER event_numbered_once BEFORE UPDATE OF seq ON event FOR EACH ROW"
        f" WHEN (OLD.seq IS NOT NULL OR NEW.seq IS NULL) {refuse}",
    )


def _mariadb_guards() -> Sequence[str]:
    refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{REFUSAL}'"
    same = " AND ".join(f"NEW.`{name}` <=> OLD.`{name}`" for name in FIXED)
    numbered = f"OLD.seq IS NULL AND NEW.seq IS NOT NULL AND {same}"
    return (
        f"CREATE TRIGGER event_never_deleted BEFORE DELETE ON event FOR EACH ROW {refuse}",
        "CREATE TRIGGER event_never_changed BEFORE UPDATE ON event FOR EACH ROW"
        f" IF NOT ({numbered}) THEN {refuse}; END IF",
    )

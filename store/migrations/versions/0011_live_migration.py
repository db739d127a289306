"""Runs that may be on either of two hosts, while libvirt moves a guest from one to the other.

Frozen once released: a later change of `store.schema_ha` gets a revision of its own. SQLite cannot
change a check, so there the table is made anew from its own definition, whatever else was added to
it meanwhile.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COLUMNS = (
    ("target_host_id", sa.Uuid(), "host"),
    ("target_epoch", sa.Integer(), None),
    ("target_generation", sa.Integer(), None),
    ("moved_by", sa.Uuid(), "operation"),
)
MIGRATING = (
    "(state = 'migrating') = (target_host_id IS NOT NULL AND target_epoch IS NOT NULL"
    " AND target_generation IS NOT NULL AND moved_by IS NOT NULL)"
)
OLD_STATES = "'running', 'stopping'"
NEW_STATES = "'running', 'migrating', 'stopping'"
ACTIVE = (
    "(active IS NOT NULL AND active = 1 AND state IN ('placed', 'starting', {states}))"
    " OR (active IS NULL AND state IN ('ended', 'lost'))"
)


def upgrade() -> None:
    """Add the target of a migration to runs, and the state that needs one."""
    if op.get_bind().dialect.name == "sqlite":
        _made_anew()
        return
    for name, kind, other in COLUMNS:
        op.add_column("vm_run", sa.Column(name, kind, nullable=True))
        if other is not None:
            op.create_foreign_key(f"fk_vm_run_{name}", "vm_run", other, [name], ["id"])
    op.drop_constraint(op.f("ck_vm_run_active"), "vm_run", type_="check")
    active = ACTIVE.format(states=NEW_STATES)
    op.create_check_constraint(op.f("ck_vm_run_active"), "vm_run", active)
    op.create_check_constraint(op.f("ck_vm_run_migrating"), "vm_run", MIGRATING)


def _made_anew() -> None:
    found = "SELECT sql FROM sqlite_master WHERE tbl_name = 'vm_run' AND type = '{}'"
    bind = op.get_bind()
    (table,) = bind.exec_driver_sql(found.format("table")).scalars()
    named = bind.exec_driver_sql(found.format("index") + " AND sql IS NOT NULL").scalars()
    indexes = list(named)
    columns = [row[1] for row in bind.exec_driver_sql("PRAGMA table_info(vm_run)")]
    bind.exec_driver_sql("ALTER TABLE vm_run RENAME TO vm_run_before")
    for index in indexes:
        bind.exec_driver_sql(f"DROP INDEX {index.split()[2]}")
    bind.exec_driver_sql(_with_target(table))
    names = ", ".join(columns)
    bind.exec_driver_sql(f"INSERT INTO vm_run ({names}) SELECT {names} FROM vm_run_before")
    bind.exec_driver_sql("DROP TABLE vm_run_before")
    for index in indexes:
        bind.exec_driver_sql(index)


def _with_target(table: str) -> str:
    """The definition of the table with what is new at its end, each on a line of its own."""
    body, _, tail = table.rpartition(")")
    kinds = {name: "CHAR(32)" if other else "INTEGER" for name, _, other in COLUMNS}
    first, _, rest = body.partition("(")
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    keys = ", ".join(
        f"CONSTRAINT fk_vm_run_{name} FOREIGN KEY({name}) REFERENCES {other} (id)"
        for name, _, other in COLUMNS
        if other
    )
    check = f"CONSTRAINT ck_vm_run_migrating CHECK ({MIGRATING})"
    assert OLD_STATES in rest
    rest = rest.replace(OLD_STATES, NEW_STATES)
    return f"{first}({columns}, {rest}, {keys}, {check}){tail}"


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

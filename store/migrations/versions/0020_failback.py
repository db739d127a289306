"""VMs that go back to the host that is their home, once it has been up for a while.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. No
VM has a home, and none goes back to one, until a person says so.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0020"
down_revision: str | Sequence[str] | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add columns and tables."""
    op.add_column("cluster", _number("failback_after_s", "600"))
    mode = sa.Column("failback", sa.String(length=8), server_default="off", nullable=False)
    op.add_column("vm", mode)
    op.add_column("vm", sa.Column("home_id", sa.Uuid(), nullable=True))
    op.add_column("vm", _rests())
    _add_failback()
    op.create_table(
        "failback_age",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("monitor", sa.String(length=64), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "monitor", name=op.f("pk_failback_age")),
    )


def _add_failback() -> None:
    op.create_table(
        "failback",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("home_id", sa.Uuid(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        _number("failures", "0"),
        _number("wait_s", "0"),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("why", sa.String(length=1024), nullable=True),
        sa.Column("claimed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name=op.f("fk_failback_vm_id")),
        sa.ForeignKeyConstraint(["home_id"], ["host.id"], name=op.f("fk_failback_home_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failback")),
        sa.UniqueConstraint("vm_id", "open", name="uq_failback_vm"),
        sa.UniqueConstraint("home_id", "open", name="uq_failback_home"),
    )


def _rests() -> sa.Column[bool]:
    return sa.Column("failback_rests", sa.Boolean(), server_default=sa.false(), nullable=False)


def _number(name: str, value: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=sa.text(value), nullable=False)


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

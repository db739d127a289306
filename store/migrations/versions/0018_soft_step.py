"""SSH access to hosts, and the restarts of libvirtd over it.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. No
host has access until somebody gives it, so nothing acts anew after an upgrade.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0018"
down_revision: str | Sequence[str] | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add a column and two tables."""
    wanted: sa.Column[bool] = sa.Column(
        "soft_step", sa.Boolean(), server_default=sa.true(), nullable=False
    )
    op.add_column("cluster", wanted)
    op.create_table(
        "ssh_access",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("user", sa.String(length=32), nullable=False),
        sa.Column("port", sa.Integer(), server_default=sa.text("22"), nullable=False),
        sa.Column("host_key", sa.String(length=4096), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_ssh_access_host_id"),
        sa.PrimaryKeyConstraint("host_id", name="pk_ssh_access"),
    )
    op.create_table(
        "soft_step",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("automatic", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.Column("claimed_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_soft_step_host_id"),
        sa.PrimaryKeyConstraint("id", name="pk_soft_step"),
        sa.UniqueConstraint("operation_id", "attempt", name="uq_soft_step_operation"),
    )
    op.create_index("ix_soft_step_host", "soft_step", ["host_id", "claimed_at"])


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

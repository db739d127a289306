"""Racks and sites, fence budgets, how a cluster is disarmed, and when a VM is ready.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. A
cluster that is disarmed stays so in the mode that it had: recoveries hold before they cut power.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
PLACES = ("rack", "site")
LIMITS = (
    "fences_percent",
    "rack_fences_max",
    "rack_fences_percent",
    "site_fences_max",
    "site_fences_percent",
)


def upgrade() -> None:
    """Add columns."""
    for name in PLACES:
        place = sa.Column(name, sa.String(length=63), server_default="", nullable=False)
        op.add_column("host", place)
    for column in _cluster():
        op.add_column("cluster", column)
    op.execute(sa.text("UPDATE cluster SET disarm_mode = 'hold' WHERE NOT armed"))
    op.add_column("vm", sa.Column("ready", sa.JSON(none_as_null=True), nullable=True))


def _cluster() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("fence_window_s", sa.Integer(), server_default=sa.text("300"), nullable=False),
        sa.Column("fences_max", sa.Integer(), server_default=sa.text("1"), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in LIMITS),
        sa.Column("disarm_mode", sa.String(length=8), nullable=True),
        sa.Column("disarmed_by", sa.String(length=128), nullable=True),
        sa.Column("disarm_reason", sa.String(length=1024), nullable=True),
        sa.Column("disarmed_at", TIME, nullable=True),
    )


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

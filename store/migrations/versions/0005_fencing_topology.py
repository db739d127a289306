"""How the fence devices of a host work together, and how long that may take.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds, and
what is there gets the values under which all devices of a host have to agree, as they had before.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add columns."""
    for column in _fence_device():
        op.add_column("fence_device", column)
    limit = sa.Column("fence_limit_s", sa.Float(), server_default=sa.text("300"), nullable=False)
    op.add_column("cluster", limit)


def _fence_device() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("level", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("delay_s", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("retries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("shares_power", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("last_tested_at", TIME, nullable=True),
        sa.Column("test_reading", sa.String(length=8), nullable=True),
        sa.Column("test_took_s", sa.Float(), nullable=True),
        sa.Column("test_identity", sa.String(length=8), nullable=True),
        sa.Column("silent_since", TIME, nullable=True),
    )


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

"""What switching a host off and on with its fence devices has shown.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0015"
down_revision: str | Sequence[str] | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add columns."""
    op.add_column("fence_device", sa.Column("rehearsal", sa.String(length=8), nullable=True))
    op.add_column("fence_device", sa.Column("rehearsed_at", TIME, nullable=True))


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

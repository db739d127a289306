"""When an operation last said that it waits, and what a host starts by itself at boot.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. Of
what waits while this is installed nothing is known until it says so again, at its next look.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0024"
down_revision: str | Sequence[str] | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add the columns."""
    nothing = sa.text("''")
    op.add_column(
        "host",
        sa.Column("autostart", sa.String(length=1024), server_default=nothing, nullable=False),
    )
    op.add_column("operation", sa.Column("waiting_told_at", TIME, nullable=True))


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

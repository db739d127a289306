"""How far a cluster lets its hosts promise more memory than they have; not at all unless told.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | Sequence[str] | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column."""
    one = sa.text("1")
    op.add_column(
        "cluster",
        sa.Column("memory_overcommit", sa.Double(), server_default=one, nullable=False),
    )


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

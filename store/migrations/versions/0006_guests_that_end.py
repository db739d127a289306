"""What becomes of a VM whose guest ends by itself.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Give each VM its limits, and what a shutdown from inside means."""
    stay = sa.Column("on_guest_shutdown", sa.String(8), server_default="stay", nullable=False)
    op.add_column("vm", stay)
    for name in ("max_restart", "max_relocate"):
        limit = sa.Column(name, sa.Integer(), server_default=sa.text("3"), nullable=False)
        op.add_column("vm", limit)


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

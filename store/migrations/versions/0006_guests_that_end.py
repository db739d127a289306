"""What becomes of a VM whose guest ends by itself, or is paused by an I/O error.

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
    """Give each VM its limits, and say what its guest's own ends and pauses mean."""
    stay = sa.Column("on_guest_shutdown", sa.String(8), server_default="stay", nullable=False)
    op.add_column("vm", stay)
    resume = sa.Column("on_io_error", sa.String(16), server_default="resume", nullable=False)
    op.add_column("vm", resume)
    op.add_column("vm_run", sa.Column("paused_reason", sa.String(16), nullable=True))
    for name in ("max_restart", "max_relocate"):
        limit = sa.Column(name, sa.Integer(), server_default=sa.text("3"), nullable=False)
        op.add_column("vm", limit)


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

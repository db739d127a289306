"""Whether a VM's guest agent is listened to, and what is known of it in each run.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from store.types import UtcDateTime

revision: str = "0017"
down_revision: str | Sequence[str] | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Nobody is listened to until somebody asks for it."""
    off = sa.Column("on_hang", sa.String(8), server_default="off", nullable=False)
    op.add_column("vm", off)
    after = sa.Column("hang_after_s", sa.Integer(), server_default=sa.text("60"), nullable=False)
    op.add_column("vm", after)
    heard: sa.Column[bool] = sa.Column(
        "agent_heard", sa.Boolean(), server_default=sa.false(), nullable=False
    )
    op.add_column("vm_run", heard)
    op.add_column("vm_run", sa.Column("agent_silent_since", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

"""Who a monitor is, on which machine, whether it lives and sees; and how long it knows a host.

Frozen once released: a later change of `store.schema_ha` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from store.types import UtcDateTime

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns; each monitor fills its own in when it starts."""
    for name, length in (("machine", 255), ("owner", 128)):
        column = sa.Column(name, sa.String(length=length), server_default="", nullable=False)
        op.add_column("monitor", column)
    for name in ("gone_at", "blind_at"):
        op.add_column("monitor", sa.Column(name, UtcDateTime(), nullable=True))
    op.add_column(
        "observation",
        sa.Column("warm", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("observation", sa.Column("since", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

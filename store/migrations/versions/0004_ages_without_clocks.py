"""What was heard since, and how old a fence is, told without anybody's time of day.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. A
claim from before begins to age when a monitor sees it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add two columns and a table."""
    op.create_table(
        "fence_age",
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        sa.Column("monitor", sa.String(length=64), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["claim_id"], ["fence_claim.id"], name="fk_fence_age_claim_id"),
        sa.PrimaryKeyConstraint("claim_id", "monitor", name="pk_fence_age"),
    )
    watched = sa.Column("watched_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("monitor", watched)
    op.add_column("observation", sa.Column("heard_sequence", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

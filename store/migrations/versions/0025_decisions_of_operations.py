"""What each decision of an operation rested on, where no incident keeps it.

Frozen once released: a later change of `store.schema_ha` gets a revision of its own. It only adds:
operations from before keep no decisions.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from store.types import UtcDateTime

revision: str = "0025"
down_revision: str | Sequence[str] | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OF_OPERATION = "fk_operation_decision_operation_id"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "operation_decision",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("question", sa.String(length=16), nullable=False),
        sa.Column("subject_type", sa.String(length=8), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("subject_name", sa.String(length=255), nullable=False),
        sa.Column("chosen", sa.String(length=255), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("why", sa.String(length=1024), nullable=False),
        sa.Column("inputs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("rejected", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("rejected_more", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("times", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name=OF_OPERATION),
        sa.PrimaryKeyConstraint("id", name="pk_operation_decision"),
    )
    op.create_index("ix_operation_decision_operation", "operation_decision", ["operation_id", "id"])


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

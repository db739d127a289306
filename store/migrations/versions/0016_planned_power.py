"""The power of hosts that are shut down by plan, and the VMs that come back after it.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from store.types import UtcDateTime

revision: str = "0016"
down_revision: str | Sequence[str] | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column and a table."""
    op.add_column("host", sa.Column("power", sa.String(length=16), nullable=True))
    op.create_table(
        "planned_stop",
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("frozen", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("start_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name=op.f("fk_planned_stop_vm_id")),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_planned_stop_host_id")),
        sa.PrimaryKeyConstraint("vm_id", name=op.f("pk_planned_stop")),
    )
    op.create_index("ix_planned_stop_operation", "planned_stop", ["operation_id"])


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

"""Each death certificate carries the digest of the one before it.

Frozen once released: a later change of `store.schema_ha` gets a revision of its own. It only adds:
certificates from before keep their digests, and have no number.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add two columns and a unique index."""
    op.add_column("death_certificate", sa.Column("number", sa.Integer(), nullable=True))
    op.add_column("death_certificate", sa.Column("previous", sa.String(length=64), nullable=True))
    op.create_index("uq_certificate_number", "death_certificate", ["number"], unique=True)


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

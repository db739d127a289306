"""How many vCPUs a cluster lets its hosts promise, and what its runs have taken of them.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. No
cluster limits vCPUs until a person says so. Runs take what their VMs have now: what those had when
the runs began was never written down.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | Sequence[str] | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TAKEN_BY_RUNS = "UPDATE vm_run SET vcpus = (SELECT vm.vcpus FROM vm WHERE vm.id = vm_run.vm_id)"
RESERVED_ON_HOSTS = """
UPDATE host SET vcpus_reserved = (
    SELECT COALESCE(SUM(vm_run.vcpus), 0) FROM vm_run
    WHERE vm_run.active = 1 AND (vm_run.host_id = host.id OR vm_run.target_host_id = host.id)
)
"""


def upgrade() -> None:
    """Add columns and count what is taken."""
    op.add_column("cluster", sa.Column("vcpu_overcommit", sa.Double(), nullable=True))
    op.add_column("vm_run", _number("vcpus"))
    op.add_column("host", _number("vcpus_reserved"))
    op.execute(TAKEN_BY_RUNS)
    op.execute(RESERVED_ON_HOSTS)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

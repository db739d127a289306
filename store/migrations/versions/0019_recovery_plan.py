"""How many VMs a recovery starts at once on one host, and which were stopped to make room.

Frozen once released: a later change of `store.schema` gets a revision of its own. It only adds. No
cluster lets VMs be stopped for others until a person says so.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: str = "0019"
down_revision: str | Sequence[str] | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Add columns and a table."""
    make_room = sa.Column("make_room", sa.String(length=8), server_default="off", nullable=False)
    op.add_column("cluster", make_room)
    for name, value in (("make_room_max", "10"), ("starts_per_host", "8")):
        number = sa.Column(name, sa.Integer(), server_default=sa.text(value), nullable=False)
        op.add_column("cluster", number)
    op.add_column("vm", _may_be_stopped())
    _add_made_room()


def _may_be_stopped() -> sa.Column[bool]:
    return sa.Column("may_be_stopped", sa.Boolean(), server_default=sa.true(), nullable=False)


def _add_made_room() -> None:
    op.create_table(
        "made_room",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("for_vm_id", sa.Uuid(), nullable=False),
        sa.Column("for_operation_id", sa.Uuid(), nullable=False),
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("for_priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=True),
        sa.Column("owed", sa.Integer(), nullable=True),
        sa.Column("stop_id", sa.Uuid(), nullable=True),
        sa.Column("start_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("priority < for_priority", name=op.f("ck_made_room_outranked")),
        *_references(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_made_room")),
        sa.UniqueConstraint("vm_id", "owed", name="uq_made_room_owed"),
    )
    op.create_index("ix_made_room_incident", "made_room", ["incident_id"])
    op.create_index("ix_made_room_for", "made_room", ["for_operation_id"])
    op.create_index("ix_made_room_start", "made_room", ["start_id"])


def _references() -> tuple[sa.ForeignKeyConstraint, ...]:
    refers = {"incident_id": "incident", "for_vm_id": "vm", "vm_id": "vm"}
    refers |= {"host_id": "host"}
    return tuple(
        sa.ForeignKeyConstraint([column], [f"{table}.id"], name=op.f(f"fk_made_room_{column}"))
        for column, table in refers.items()
    )


def downgrade() -> None:
    """Not offered: going back is restoring the backup made before the upgrade."""
    raise NotImplementedError("restore the backup that was made before this upgrade")

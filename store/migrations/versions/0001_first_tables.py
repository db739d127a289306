"""Clusters, hosts, VMs and fence devices; operations with all that goes with them.

Names of checks are final (`op.f`): else the naming convention would prefix them once more.
Frozen once released: a later change of `store.schema` gets a revision of its own. Times are UTC.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, each after those that it refers to."""
    _cluster()
    _host()
    _operation()
    _vm()
    _event()
    _fence_device()
    _idempotency_key()
    _lock()
    _outbox()
    _step()
    _vm_dependency()


def downgrade() -> None:
    """Drop the tables, each before those that it refers to."""
    for table in (
        "vm_dependency",
        "step",
        "outbox",
        "lock",
        "idempotency_key",
        "fence_device",
        "event",
        "vm",
        "operation",
        "host",
        "cluster",
    ):
        op.drop_table(table)


def _cluster() -> None:
    op.create_table(
        "cluster",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=False),
        sa.Column("virt_type", sa.String(length=8), nullable=False),
        sa.Column("armed", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster"),
        sa.UniqueConstraint("name", name="uq_cluster_name"),
    )


def _host() -> None:
    op.create_table(
        "host",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.String(length=512), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("state_reason", sa.String(length=1024), nullable=False),
        sa.Column("state_since", TIME, nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("memory_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("memory_reserved_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cpus", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("own_host", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("memory_reserved_mib >= 0", name=op.f("ck_host_reserved_not_negative")),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_host_cluster_id"),
        sa.PrimaryKeyConstraint("id", name="pk_host"),
        sa.UniqueConstraint("name", name="uq_host_name"),
        sa.UniqueConstraint("uri", name="uq_host_uri"),
    )


def _operation() -> None:
    op.create_table(
        "operation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=True),
        sa.Column("waiting_for", sa.String(length=1024), nullable=True),
        sa.Column("target_type", sa.String(length=16), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("target_name", sa.String(length=64), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=True),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("incident_id", sa.Uuid(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("correlation_id", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=32), nullable=True),
        sa.Column("order", sa.JSON(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("summary", sa.String(length=1024), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_operation_cluster_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["operation.id"], name="fk_operation_parent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_operation"),
    )
    op.create_index("ix_operation_created", "operation", ["created_at"])
    op.create_index("ix_operation_parent", "operation", ["parent_id"])
    op.create_index("ix_operation_state", "operation", ["state"])
    op.create_index("ix_operation_target", "operation", ["target_type", "target_id"])


def _vm() -> None:
    op.create_table(
        "vm",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("memory_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("vcpus", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("protected", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("50"), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("wanted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_vm_cluster_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vm"),
        sa.UniqueConstraint("name", name="uq_vm_name"),
    )


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("subject_type", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("correlation_id", sa.String(length=64), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.UniqueConstraint("seq", name="uq_event_seq"),
    )
    op.create_index("ix_event_subject", "event", ["subject_type", "subject_id", "at"])


def _fence_device() -> None:
    op.create_table(
        "fence_device",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("deadline_s", sa.Float(), nullable=False),
        sa.Column("last_reading", sa.String(length=8), nullable=True),
        sa.Column("last_read_at", TIME, nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_fence_device_host_id"),
        sa.PrimaryKeyConstraint("id", name="pk_fence_device"),
        sa.UniqueConstraint("name", name="uq_fence_device_name"),
    )


def _idempotency_key() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name="fk_idempotency_key_operation_id"
        ),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotency_key"),
    )


def _lock() -> None:
    op.create_table(
        "lock",
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("acquired_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_lock_operation_id"),
        sa.PrimaryKeyConstraint("entity_type", "entity_id", name="pk_lock"),
    )
    op.create_index("ix_lock_operation", "lock", ["operation_id"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.String(length=1024), nullable=True),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("done_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_outbox_operation_id"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_due", "outbox", ["done_at", "due_at"])


def _step() -> None:
    op.create_table(
        "step",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("detail", sa.String(length=1024), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("deadline_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_step_operation_id"),
        sa.PrimaryKeyConstraint("operation_id", "attempt", "step_id", name="pk_step"),
    )


def _vm_dependency() -> None:
    op.create_table(
        "vm_dependency",
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("depends_on_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("vm_id <> depends_on_id", name=op.f("ck_vm_dependency_not_itself")),
        sa.ForeignKeyConstraint(
            ["depends_on_id"], ["vm.id"], name="fk_vm_dependency_depends_on_id"
        ),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name="fk_vm_dependency_vm_id"),
        sa.PrimaryKeyConstraint("vm_id", "depends_on_id", name="pk_vm_dependency"),
    )

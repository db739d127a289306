"""Runs of VMs, observations of hosts, incidents, evidence, death certificates.

Names of checks are final (`op.f`): else the naming convention would prefix them once more.
Frozen once released: a later change of `store.schema_ha` gets a revision of its own. A unique index
over `active`, `open` or `valid` lets one row hold 1 there and any number NULL, on every database.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, each after those that it refers to."""
    _monitor()
    _host_sample()
    _observation()
    _incident()
    _evidence()
    _fence_claim()
    _death_certificate()
    _vm_run()


def downgrade() -> None:
    """Drop the tables, each before those that it refers to."""
    for table in (
        "vm_run",
        "death_certificate",
        "fence_claim",
        "evidence",
        "incident",
        "observation",
        "host_sample",
        "monitor",
    ):
        op.drop_table(table)


def _monitor() -> None:
    op.create_table(
        "monitor",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("rounds", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("warm", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_monitor"),
    )


def _host_sample() -> None:
    op.create_table(
        "host_sample",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("memory_total_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("memory_free_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cpus", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("took_s", sa.Float(), nullable=False),
        sa.Column("guests", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_host_sample_host_id"),
        sa.PrimaryKeyConstraint("host_id", "at", name="pk_host_sample"),
    )


def _observation() -> None:
    op.create_table(
        "observation",
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("monitor", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("silent_s", sa.Float(), nullable=False),
        sa.Column("misses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("others_seen", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("boot_mark", sa.Integer(), nullable=True),
        sa.Column("took_s", sa.Float(), nullable=True),
        sa.Column("detail", sa.String(length=1024), nullable=True),
        sa.Column("last_answer_at", TIME, nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_observation_host_id"),
        sa.PrimaryKeyConstraint("host_id", "monitor", name="pk_observation"),
    )


def _incident() -> None:
    op.create_table(
        "incident",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open", sa.Integer(), nullable=True),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.Column("reported_by", sa.String(length=64), nullable=False),
        sa.Column("why", sa.String(length=1024), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("reports", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("phases", sa.JSON(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=True),
        sa.Column("last_answer_at", TIME, nullable=True),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("closed_at", TIME, nullable=True),
        sa.CheckConstraint("open = 1 OR open IS NULL", name=op.f("ck_incident_open")),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_incident_host_id"),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name="fk_incident_operation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_incident"),
        sa.UniqueConstraint("host_id", "epoch", "open", name="uq_incident_open"),
    )


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(length=1024), nullable=False),
        sa.Column("took_s", sa.Float(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_evidence_host_id"),
        sa.ForeignKeyConstraint(["incident_id"], ["incident.id"], name="fk_evidence_incident_id"),
        sa.PrimaryKeyConstraint("id", name="pk_evidence"),
    )
    op.create_index("ix_evidence_incident", "evidence", ["incident_id"])


def _fence_claim() -> None:
    op.create_table(
        "fence_claim",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("claimed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["cluster.id"], name="fk_fence_claim_cluster_id"),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_fence_claim_host_id"),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name="fk_fence_claim_operation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_fence_claim"),
        sa.UniqueConstraint("host_id", "epoch", "operation_id", name="uq_fence_claim"),
    )
    op.create_index("ix_fence_claim_window", "fence_claim", ["cluster_id", "claimed_at"])


def _death_certificate() -> None:
    op.create_table(
        "death_certificate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("valid", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("voided_at", TIME, nullable=True),
        sa.Column("void_reason", sa.String(length=1024), nullable=True),
        sa.CheckConstraint(
            "(state = 'valid' AND valid IS NOT NULL AND valid = 1)"
            " OR (state = 'void' AND valid IS NULL)",
            name=op.f("ck_death_certificate_valid"),
        ),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_death_certificate_host_id"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name="fk_death_certificate_incident_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_death_certificate"),
        sa.UniqueConstraint("host_id", "epoch", "valid", name="uq_certificate_valid"),
        sa.UniqueConstraint("id", "host_id", "epoch", name="uq_certificate_identity"),
    )


def _vm_run() -> None:
    op.create_table(
        "vm_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("vm_id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Integer(), nullable=True),
        sa.Column("memory_mib", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("lost_certificate_id", sa.Uuid(), nullable=True),
        sa.Column("licence_id", sa.Uuid(), nullable=True),
        sa.Column("incident_id", sa.Uuid(), nullable=True),
        sa.Column("end_reason", sa.String(length=64), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "(active IS NOT NULL AND active = 1"
            " AND state IN ('placed', 'starting', 'running', 'stopping'))"
            " OR (active IS NULL AND state IN ('ended', 'lost'))",
            name=op.f("ck_vm_run_active"),
        ),
        sa.CheckConstraint(
            "(state = 'lost') = (lost_certificate_id IS NOT NULL)", name=op.f("ck_vm_run_lost")
        ),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name="fk_vm_run_host_id"),
        sa.ForeignKeyConstraint(["incident_id"], ["incident.id"], name="fk_vm_run_incident_id"),
        sa.ForeignKeyConstraint(
            ["licence_id"], ["death_certificate.id"], name="fk_vm_run_licence_id"
        ),
        sa.ForeignKeyConstraint(
            ["lost_certificate_id", "host_id", "epoch"],
            ["death_certificate.id", "death_certificate.host_id", "death_certificate.epoch"],
            name="fk_vm_run_lost_certificate",
        ),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_vm_run_operation_id"),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name="fk_vm_run_vm_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vm_run"),
        sa.UniqueConstraint("vm_id", "active", name="uq_vm_run_active"),
        sa.UniqueConstraint("vm_id", "generation", name="uq_vm_run_generation"),
    )
    op.create_index("ix_vm_run_host", "vm_run", ["host_id", "active"])

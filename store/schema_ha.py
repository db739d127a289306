"""The tables of high availability: runs, observations, incidents, evidence, certificates.

A CHECK that comes out as NULL is not violated, so each branch of one says first that its column is
not NULL.
"""

from typing import Any

import sqlalchemy as sa

from store.columns import document, flag, identity, integer, metadata, reference, text, time
from store.types import UtcDateTime

incident = sa.Table(
    "incident",
    metadata,
    identity(),
    reference("host_id", "host"),
    integer("epoch"),
    sa.Column("open", sa.Integer, nullable=True),  # 1, or NULL once closed
    text("phase", length=16),
    text("outcome", nullable=True, length=32),
    text("reported_by", length=64),
    text("why", length=1024),
    reference("operation_id", "operation", nullable=True),
    integer("reports", 1),
    document("phases"),  # phase -> time it began
    document("decision", nullable=True),
    time("last_answer_at"),
    time("opened_at", nullable=False),
    time("closed_at"),
    sa.UniqueConstraint("host_id", "epoch", "open", name="uq_incident_open"),
    sa.CheckConstraint("open = 1 OR open IS NULL", name="open"),
)

evidence = sa.Table(
    "evidence",
    metadata,
    identity(),
    reference("incident_id", "incident"),
    reference("host_id", "host"),
    integer("epoch"),
    text("kind", length=32),
    text("device", length=64),
    text("verdict", length=16),
    text("detail", length=1024),
    sa.Column("took_s", sa.Float, nullable=False),
    time("at", nullable=False),
    sa.Index("ix_evidence_incident", "incident_id"),
)

fence_claim = sa.Table(
    "fence_claim",
    metadata,
    identity(),
    reference("host_id", "host"),
    integer("epoch"),
    reference("operation_id", "operation"),
    reference("cluster_id", "cluster"),
    time("claimed_at", nullable=False),
    sa.UniqueConstraint("host_id", "epoch", "operation_id", name="uq_fence_claim"),
    sa.Index("ix_fence_claim_window", "cluster_id", "claimed_at"),
)

fence_age = sa.Table(
    "fence_age",
    metadata,
    sa.Column("claim_id", sa.Uuid, sa.ForeignKey("fence_claim.id"), primary_key=True),
    sa.Column("monitor", sa.String(64), primary_key=True),
    sa.Column("since_ms", sa.BigInteger, nullable=False),  # of its `watched_ms`, once it saw it
)

death_certificate = sa.Table(
    "death_certificate",
    metadata,
    identity(),
    reference("host_id", "host"),
    integer("epoch"),
    reference("incident_id", "incident"),
    text("state", length=8),  # valid, void
    sa.Column("valid", sa.Integer, nullable=True),  # 1 while valid, else NULL
    integer("uses"),  # starts it licensed; raising it is how a start locks the row
    document("evidence"),
    text("digest", length=64),
    sa.Column("number", sa.Integer, nullable=True),  # its place in the chain
    text("previous", nullable=True, length=64),  # digest of the one before it
    time("issued_at", nullable=False),
    time("voided_at"),
    text("void_reason", nullable=True, length=1024),
    sa.UniqueConstraint("host_id", "epoch", "valid", name="uq_certificate_valid"),
    sa.UniqueConstraint("id", "host_id", "epoch", name="uq_certificate_identity"),
    sa.Index("uq_certificate_number", "number", unique=True),
    sa.CheckConstraint(
        "(state = 'valid' AND valid IS NOT NULL AND valid = 1)"
        " OR (state = 'void' AND valid IS NULL)",
        name="valid",
    ),
)

vm_run = sa.Table(
    "vm_run",
    metadata,
    identity(),
    reference("vm_id", "vm"),
    reference("host_id", "host"),
    integer("epoch"),
    integer("generation"),
    text("state", length=16),
    sa.Column("active", sa.Integer, nullable=True),  # 1 while a process may exist, else NULL
    integer("memory_mib"),
    integer("vcpus"),
    reference("operation_id", "operation", nullable=True),  # who started it
    sa.Column("lost_certificate_id", sa.Uuid, nullable=True),  # why it is held to be dead
    reference("licence_id", "death_certificate", nullable=True),  # under which it may start
    reference("incident_id", "incident", nullable=True),
    text("end_reason", nullable=True, length=64),
    text("paused_reason", nullable=True, length=16),  # QEMU has stopped the guest by itself
    flag("agent_heard", default=False),  # its guest agent has answered in this run
    time("agent_silent_since"),  # for people: since when it is held to be hung
    document("gave_way", nullable=True),  # names of the soft rules that its place breaks
    reference("target_host_id", "host", nullable=True),  # of a migration: where it may run, too
    sa.Column("target_epoch", sa.Integer, nullable=True),
    sa.Column("target_generation", sa.Integer, nullable=True),  # of the copy there
    reference("moved_by", "operation", nullable=True),
    time("created_at", nullable=False),
    time("turn_at"),  # since when it has its turn to start, or waits for it
    time("started_at"),
    time("ended_at"),
    sa.UniqueConstraint("vm_id", "active", name="uq_vm_run_active"),
    sa.UniqueConstraint("vm_id", "generation", name="uq_vm_run_generation"),
    sa.CheckConstraint(
        "(active IS NOT NULL AND active = 1"
        " AND state IN ('placed', 'starting', 'running', 'migrating', 'stopping'))"
        " OR (active IS NULL AND state IN ('ended', 'lost'))",
        name="active",
    ),
    sa.CheckConstraint("(state = 'lost') = (lost_certificate_id IS NOT NULL)", name="lost"),
    sa.CheckConstraint(
        "(state = 'migrating') = (target_host_id IS NOT NULL AND target_epoch IS NOT NULL"
        " AND target_generation IS NOT NULL AND moved_by IS NOT NULL)",
        name="migrating",
    ),
    sa.ForeignKeyConstraint(
        ["lost_certificate_id", "host_id", "epoch"],
        ["death_certificate.id", "death_certificate.host_id", "death_certificate.epoch"],
        name="fk_vm_run_lost_certificate",
    ),
    sa.Index("ix_vm_run_host", "host_id", "active"),
    sa.Index("ix_vm_run_operation", "operation_id"),
)

made_room = sa.Table(
    "made_room",
    metadata,
    identity(),
    reference("incident_id", "incident"),
    reference("for_vm_id", "vm"),
    sa.Column("for_operation_id", sa.Uuid, nullable=False),  # its start, which waits
    reference("vm_id", "vm"),  # that was stopped
    sa.Column("run_id", sa.Uuid, nullable=False),  # runs and operations may be archived before it
    reference("host_id", "host"),
    integer("for_priority"),  # both as they were when it was decided
    integer("priority"),
    sa.Column("waiting", sa.Integer, nullable=True),  # 1 until the other VM has its place
    sa.Column("owed", sa.Integer, nullable=True),  # 1 until its own start is ordered, or needless
    sa.Column("stop_id", sa.Uuid, nullable=True),  # operations: its stop, and its start
    sa.Column("start_id", sa.Uuid, nullable=True),
    time("created_at", nullable=False),
    sa.UniqueConstraint("vm_id", "owed", name="uq_made_room_owed"),
    sa.CheckConstraint("priority < for_priority", name="outranked"),
    sa.Index("ix_made_room_incident", "incident_id"),
    sa.Index("ix_made_room_for", "for_operation_id"),
    sa.Index("ix_made_room_start", "start_id"),
)

monitor = sa.Table(
    "monitor",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    integer("rounds"),
    flag("warm", default=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),  # never goes back
    sa.Column("watched_ms", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    time("started_at", nullable=False),
    time("seen_at", nullable=False),
    sa.Column("machine", sa.String(255), nullable=False, server_default=""),
    sa.Column("owner", sa.String(128), nullable=False, server_default=""),  # the one process
    time("gone_at"),  # since when another monitor holds it to be gone
    time("blind_at"),  # since when it has heard nothing at all
)

observation = sa.Table(
    "observation",
    metadata,
    sa.Column("host_id", sa.Uuid, sa.ForeignKey("host.id"), primary_key=True),
    sa.Column("monitor", sa.String(64), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    text("verdict", length=16),
    sa.Column("silent_s", sa.Float, nullable=False),
    integer("misses"),
    integer("others_seen"),
    sa.Column("boot_mark", sa.Integer, nullable=True),
    sa.Column("took_s", sa.Float, nullable=True),
    text("detail", nullable=True, length=1024),
    sa.Column("heard_sequence", sa.BigInteger, nullable=True),  # of the last round it answered
    time("last_answer_at"),  # for people: no two machines' clocks agree
    time("at", nullable=False),
    flag("warm", default=False),  # its monitor has looked at it often enough to judge
    time("since"),  # when its monitor began to watch it, for people
)

host_sample = sa.Table(
    "host_sample",
    metadata,
    sa.Column("host_id", sa.Uuid, sa.ForeignKey("host.id"), primary_key=True),
    sa.Column("at", UtcDateTime, primary_key=True),
    integer("memory_total_mib"),
    integer("memory_free_mib"),
    integer("cpus"),
    sa.Column("took_s", sa.Float, nullable=False),
    document("guests"),
)


def _decided() -> tuple[sa.Column[Any], ...]:
    """What is kept of a decision, whatever it is part of."""
    return (
        text("question", length=16),
        text("subject_type", length=8),  # host, vm
        sa.Column("subject_id", sa.Uuid, nullable=False),
        text("subject_name", length=255),
        text("chosen", length=255),
        text("rule", length=32),
        text("why", length=1024),
        document("inputs"),
        document("rejected"),
        integer("rejected_more"),
        integer("times", 1),  # how often it came out the same in a row
        time("first_at", nullable=False),
        time("last_at", nullable=False),
    )


decision = sa.Table(
    "decision",
    metadata,
    identity(),
    reference("incident_id", "incident"),
    *_decided(),
    sa.Index("ix_decision_incident", "incident_id", "id"),
)

operation_decision = sa.Table(
    "operation_decision",
    metadata,
    identity(),
    reference("operation_id", "operation"),  # which serves no incident: that keeps its own
    *_decided(),
    sa.Index("ix_operation_decision_operation", "operation_id", "id"),
)

planned_stop = sa.Table(
    "planned_stop",
    metadata,
    sa.Column("vm_id", sa.Uuid, sa.ForeignKey("vm.id"), primary_key=True),
    reference("host_id", "host"),  # that it was shut down with
    sa.Column("operation_id", sa.Uuid, nullable=False),  # of the host's shutdown or reboot
    flag("frozen", default=False),  # it waits for that host
    sa.Column("start_id", sa.Uuid, nullable=True),  # the operation that starts it again
    time("created_at", nullable=False),
    sa.Index("ix_planned_stop_operation", "operation_id"),
)

approval = sa.Table(
    "approval",
    metadata,
    identity(),
    reference("incident_id", "incident"),
    text("principal"),
    text("reason", length=1024),
    integer("lasts_s"),
    time("given_at", nullable=False),
    time("withdrawn_at"),
    sa.Index("ix_approval_incident", "incident_id"),
)

approval_age = sa.Table(
    "approval_age",
    metadata,
    sa.Column("approval_id", sa.Uuid, sa.ForeignKey("approval.id"), primary_key=True),
    sa.Column("monitor", sa.String(64), primary_key=True),
    sa.Column("since_ms", sa.BigInteger, nullable=False),  # of its `watched_ms`, when it was given
)

ssh_access = sa.Table(
    "ssh_access",
    metadata,
    sa.Column("host_id", sa.Uuid, sa.ForeignKey("host.id"), primary_key=True),
    text("user", length=32),
    integer("port", 22),
    text("host_key", length=4096),
    sa.Column("secrets", sa.LargeBinary, nullable=False),  # sealed by drivers.secrets
    time("created_at", nullable=False),
)

soft_step = sa.Table(
    "soft_step",
    metadata,
    identity(),
    reference("host_id", "host"),
    integer("epoch"),
    sa.Column("operation_id", sa.Uuid, nullable=False),  # which may be in the archive by now
    integer("attempt", 1),
    flag("automatic", default=False),
    text("outcome", nullable=True, length=16),  # NULL while it is under way
    text("detail", length=1024),
    time("claimed_at", nullable=False),
    time("ended_at"),
    sa.UniqueConstraint("operation_id", "attempt", name="uq_soft_step_operation"),
    sa.Index("ix_soft_step_host", "host_id", "claimed_at"),
)

failback = sa.Table(
    "failback",
    metadata,
    identity(),
    reference("vm_id", "vm"),
    reference("home_id", "host"),
    sa.Column("open", sa.Integer, nullable=True),  # 1 while it is under way, NULL: it has failed
    sa.Column("operation_id", sa.Uuid, nullable=True),  # which may be in the archive by now
    integer("failures"),  # in a row, with this one
    integer("wait_s"),  # until it is tried again
    text("code", nullable=True, length=64),  # why it failed, or was given up
    text("why", nullable=True, length=1024),
    time("claimed_at", nullable=False),
    sa.UniqueConstraint("vm_id", "open", name="uq_failback_vm"),
    sa.UniqueConstraint("home_id", "open", name="uq_failback_home"),
)

failback_age = sa.Table(
    "failback_age",
    metadata,
    sa.Column("subject_id", sa.Uuid, primary_key=True),  # a home, or a failback that has failed
    sa.Column("monitor", sa.String(64), primary_key=True),
    time("since", nullable=False),  # it is up; of a failback: when it was claimed
    sa.Column("since_ms", sa.BigInteger, nullable=False),  # of the monitor's `watched_ms`
)

"""The tables. A safety rule that a constraint can hold stands here, not in Python.

I1  `uq_vm_run_active`: `active` is 1 for a run that may have a process and NULL afterwards, so the
    unique index allows one active run a VM on every database (no partial index needed).
I2  `ck_vm_run_lost`: a run is `lost` only under a certificate, and the composite foreign key
    `fk_vm_run_lost_certificate` makes it a certificate of that very host and epoch.
One exclusive lock an entity: `uq_entity_lock_exclusive`. That nobody shares what is owned rests on
the isolation of the transaction that takes the lock.
One open incident a host and epoch: `uq_incident_open`, with the same NULL trick, and likewise one
valid certificate a host and epoch: `uq_certificate_valid`.
What history refers to is never deleted: `removed_at` says since when it is gone, and its name (see
`store.inventory.tombstone`) is free for another.
"""

import sqlalchemy as sa

from store import append_only
from store.columns import document, flag, identity, integer, metadata, reference, text, time

cluster = sa.Table(
    "cluster",
    metadata,
    identity(),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    text("profile", length=16),
    text("virt_type", length=8),
    flag("armed", default=True),
    sa.Column("fence_limit_s", sa.Float, nullable=False, server_default=sa.text("300")),
    integer("fence_window_s", 300),
    integer("fences_max", 1),  # within the window, without a person
    sa.Column("fences_percent", sa.Integer, nullable=True),  # of the hosts; NULL: no limit
    sa.Column("rack_fences_max", sa.Integer, nullable=True),
    sa.Column("rack_fences_percent", sa.Integer, nullable=True),
    sa.Column("site_fences_max", sa.Integer, nullable=True),
    sa.Column("site_fences_percent", sa.Integer, nullable=True),
    flag("soft_step", default=True),  # libvirtd that hangs is restarted over SSH
    text("disarm_mode", nullable=True, length=8),  # NULL while it is armed
    text("disarmed_by", nullable=True, length=128),
    text("disarm_reason", nullable=True, length=1024),
    time("disarmed_at"),
    sa.Column("make_room", sa.String(8), nullable=False, server_default="off"),
    integer("make_room_max", 10),  # VMs stopped for others, in one incident
    integer("starts_per_host", 8),  # VMs that the engine itself starts on one host at once
    integer("failback_after_s", 600),  # so long a home is up before VMs go back to it
    sa.Column("vcpu_overcommit", sa.Double, nullable=True),  # vCPUs per logical CPU; NULL: no limit
    sa.Column("memory_overcommit", sa.Double, nullable=False, server_default=sa.text("1")),
    integer("version", 1),
    time("created_at", nullable=False),
    time("removed_at"),
)

host = sa.Table(
    "host",
    metadata,
    identity(),
    reference("cluster_id", "cluster"),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("uri", sa.String(512), nullable=False, unique=True),
    text("state", length=24),
    text("state_reason", length=1024),
    time("state_since", nullable=False),
    integer("epoch"),
    integer("memory_mib"),
    integer("memory_reserved_mib"),
    integer("cpus"),  # logical ones; 0 until it has said so
    integer("vcpus_reserved"),  # always changed together with the memory
    flag("own_host", default=False),
    text("power", nullable=True, length=16),  # while the engine switches it; see domain.planned
    sa.Column("rack", sa.String(63), nullable=False, server_default=""),  # '' where nobody told
    sa.Column("site", sa.String(63), nullable=False, server_default=""),
    sa.Column("autostart", sa.String(1024), nullable=False, server_default=""),  # a name a line
    integer("version", 1),
    time("created_at", nullable=False),
    time("removed_at"),
    sa.CheckConstraint("memory_reserved_mib >= 0", name="reserved_not_negative"),
)

fence_device = sa.Table(
    "fence_device",
    metadata,
    identity(),
    reference("host_id", "host"),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    text("agent", length=64),
    document("options"),
    sa.Column("secrets", sa.LargeBinary, nullable=False),  # sealed by drivers.secrets
    sa.Column("deadline_s", sa.Float, nullable=False),
    integer("level", 1),
    sa.Column("delay_s", sa.Float, nullable=False, server_default=sa.text("0")),
    integer("retries"),
    flag("shares_power", default=True),
    text("last_reading", nullable=True, length=8),
    time("last_read_at"),
    time("last_tested_at"),
    text("test_reading", nullable=True, length=8),
    sa.Column("test_took_s", sa.Float, nullable=True),
    text("test_identity", nullable=True, length=8),
    time("silent_since"),  # it stopped answering; NULL: it answers, or was never tested
    text("rehearsal", nullable=True, length=8),  # what switching its host off with it has shown
    time("rehearsed_at"),
    integer("version", 1),
    time("created_at", nullable=False),
)

network = sa.Table(
    "network",
    metadata,
    identity(),
    reference("cluster_id", "cluster"),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    text("bridge", nullable=True, length=15),  # of every host; NULL: QEMU's own NAT
    integer("version", 1),
    time("created_at", nullable=False),
)

vm = sa.Table(
    "vm",
    metadata,
    identity(),
    reference("cluster_id", "cluster"),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    integer("memory_mib"),
    integer("vcpus", 1),
    flag("protected", default=False),
    integer("priority", 50),
    document("spec"),  # disks, boot and NICs, as GuestSpec has them
    sa.Column("budget_s", sa.Integer, nullable=True),  # within which it should be back
    flag("wanted", default=False),  # a person wants it running
    sa.Column("on_guest_shutdown", sa.String(8), nullable=False, server_default="stay"),
    sa.Column("on_io_error", sa.String(16), nullable=False, server_default="resume"),
    sa.Column("on_hang", sa.String(8), nullable=False, server_default="off"),
    integer("hang_after_s", 60),
    integer("max_restart", 3),  # on one host, before another one tries
    integer("max_relocate", 3),  # to so many other hosts
    flag("may_be_stopped", default=True),  # for one of higher priority, where its cluster does
    document("ready", nullable=True),  # when its dependants start; NULL: once it runs
    sa.Column("failback", sa.String(8), nullable=False, server_default="off"),
    sa.Column("home_id", sa.Uuid, nullable=True),  # the host where it is to run best
    flag("failback_rests", default=False),  # a person has put it elsewhere
    integer("generation"),
    integer("version", 1),
    time("created_at", nullable=False),
    time("removed_at"),  # from then on it is history alone: runs and incidents still name it
    sa.Index("ix_vm_cluster", "cluster_id", "name"),
)

vm_dependency = sa.Table(
    "vm_dependency",
    metadata,
    sa.Column("vm_id", sa.Uuid, sa.ForeignKey("vm.id"), primary_key=True),
    sa.Column("depends_on_id", sa.Uuid, sa.ForeignKey("vm.id"), primary_key=True),
    sa.CheckConstraint("vm_id <> depends_on_id", name="not_itself"),
)

vm_nic = sa.Table(
    "vm_nic",
    metadata,
    sa.Column("vm_id", sa.Uuid, sa.ForeignKey("vm.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    reference("network_id", "network"),
    sa.Column("mac", sa.String(17), nullable=False, unique=True),
    text("model", length=16),
)

affinity_group = sa.Table(
    "affinity_group",
    metadata,
    identity(),
    reference("cluster_id", "cluster"),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    flag("together", default=True),  # else apart
    flag("hard", default=False),
    integer("version", 1),
    time("created_at", nullable=False),
)

affinity_vm = sa.Table(
    "affinity_vm",
    metadata,
    sa.Column("group_id", sa.Uuid, sa.ForeignKey("affinity_group.id"), primary_key=True),
    sa.Column("vm_id", sa.Uuid, sa.ForeignKey("vm.id"), primary_key=True),
    sa.Index("ix_affinity_vm_vm", "vm_id"),
)

affinity_host = sa.Table(
    "affinity_host",
    metadata,
    sa.Column("group_id", sa.Uuid, sa.ForeignKey("affinity_group.id"), primary_key=True),
    sa.Column("host_id", sa.Uuid, sa.ForeignKey("host.id"), primary_key=True),
)

operation = sa.Table(
    "operation",
    metadata,
    identity(),
    text("kind", length=32),
    text("state", length=16),
    text("reason_code", nullable=True, length=64),
    text("waiting_for", nullable=True, length=1024),
    time("waiting_told_at"),  # when its workflow last said so
    text("target_type", length=16),
    sa.Column("target_id", sa.Uuid, nullable=False),
    text("target_name", length=64),
    reference("cluster_id", "cluster", nullable=True),
    reference("parent_id", "operation", nullable=True),
    sa.Column("incident_id", sa.Uuid, nullable=True),
    integer("priority", 3),
    text("principal", length=128),
    text("reason", length=1024),
    text("correlation_id", length=64),
    text("workflow", nullable=True, length=32),
    document("order", nullable=True),
    document("params", nullable=True),  # as asked for: what a later try is accepted from
    flag("held", default=False),  # a child that its batch has not released yet
    sa.Column("progress_done", sa.Integer, nullable=True),  # where it can be counted
    sa.Column("progress_total", sa.Integer, nullable=True),
    time("lock_deadline_at"),  # until when it waits for its locks
    time("swept_at"),  # when its workflow was last looked for
    integer("attempt", 1),
    text("run_id", nullable=True, length=64),
    document("problem", nullable=True),
    text("summary", nullable=True, length=1024),
    time("created_at", nullable=False),
    time("started_at"),
    time("finished_at"),
    sa.Index("ix_operation_state", "state", "id"),
    sa.Index("ix_operation_kind", "kind", "id"),
    sa.Index("ix_operation_created", "created_at"),
    sa.Index("ix_operation_target", "target_id", "id"),
    sa.Index("ix_operation_parent", "parent_id"),
)

step = sa.Table(
    "step",
    metadata,
    sa.Column("operation_id", sa.Uuid, sa.ForeignKey("operation.id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),  # the operation's try
    sa.Column("step_id", sa.String(64), primary_key=True),  # Temporal's activity id
    text("name", length=64),
    text("state", length=16),
    integer("tries", 1),
    text("detail", nullable=True, length=1024),
    document("problem", nullable=True),
    time("started_at", nullable=False),
    time("finished_at"),
    time("deadline_at"),
)

entity_lock = sa.Table(
    "entity_lock",
    metadata,
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("entity_id", sa.Uuid, primary_key=True),
    sa.Column("operation_id", sa.Uuid, sa.ForeignKey("operation.id"), primary_key=True),
    sa.Column("exclusive", sa.Integer, nullable=True),  # 1, or NULL where it is shared
    integer("generation", 1),
    time("acquired_at", nullable=False),
    sa.UniqueConstraint("entity_type", "entity_id", "exclusive", name="uq_entity_lock_exclusive"),
    sa.CheckConstraint("exclusive IS NULL OR exclusive = 1", name="exclusive"),
    sa.Index("ix_entity_lock_operation", "operation_id"),
)

idempotency_key = sa.Table(
    "idempotency_key",
    metadata,
    sa.Column("principal", sa.String(128), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    text("fingerprint", length=64),
    reference("operation_id", "operation"),
    time("created_at", nullable=False),
)

outbox = sa.Table(
    "outbox",
    metadata,
    identity(),
    reference("operation_id", "operation"),
    sa.Column("kind", sa.String(16), nullable=False, server_default="start"),
    text("signal", nullable=True, length=32),
    integer("tries"),
    text("last_error", nullable=True, length=1024),
    time("due_at", nullable=False),
    time("done_at"),
    sa.Index("ix_outbox_due", "done_at", "due_at"),
    sa.Index("ix_outbox_operation", "operation_id"),
)

event = sa.Table(
    "event",
    metadata,
    identity(),
    sa.Column("seq", sa.BigInteger, nullable=True, unique=True),  # given by the sequencer
    text("type", length=64),
    text("subject_type", length=16),
    sa.Column("subject_id", sa.Uuid, nullable=False),
    text("principal", length=128),
    text("correlation_id", length=64),
    sa.Column("operation_id", sa.Uuid, nullable=True),
    sa.Column("reason", sa.String(1024), nullable=False, server_default=""),
    document("before", nullable=True),
    document("after", nullable=True),
    document("data"),
    time("at", nullable=False),
    sa.Index("ix_event_subject", "subject_type", "subject_id", "at"),
    sa.Index("ix_event_at", "at"),
    sa.Index("ix_event_type", "type", "at"),
    sa.Index("ix_event_principal", "principal", "at"),
    sa.Index("ix_event_correlation", "correlation_id", "at"),
    sa.Index("ix_event_operation", "operation_id", "at"),
)
append_only.guard(event)

archive = sa.Table(
    "archive",
    metadata,
    identity(),  # of the operation
    text("kind", length=32),
    text("target_type", length=16),
    sa.Column("target_id", sa.Uuid, nullable=False),
    sa.Column("parent_id", sa.Uuid, nullable=True),
    time("finished_at", nullable=False),
    document("document"),  # the operation with its steps
    time("archived_at", nullable=False),
    sa.Index("ix_archive_target", "target_type", "target_id"),
    sa.Index("ix_archive_parent", "parent_id"),
)

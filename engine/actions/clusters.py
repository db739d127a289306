"""Clusters: adding, changing and removing them, and arming or disarming their automatic actions."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.capacity import (
    MEMORY_OVERCOMMIT_LEAST,
    MEMORY_OVERCOMMIT_MOST,
    VCPU_OVERCOMMIT_LEAST,
    VCPU_OVERCOMMIT_MOST,
)
from domain.context import PriorityClass
from domain.disarming import DISARMED, DisarmMode
from domain.errors import Conflict
from domain.failback import FAILBACK_AFTER_MAX_S, FAILBACK_AFTER_S
from domain.inventory import NAME, VirtType
from domain.locks import exclusive
from domain.make_room import MAKE_ROOM_MAX, MAKE_ROOM_MAX_MOST, MakeRoom
from domain.permissions import Permission
from domain.profiles import STARTS_PER_HOST, STARTS_PER_HOST_MAX, Profile
from domain.start_turns import STARTS_AT_LIMIT
from domain.topology import FENCE_LIMIT_S
from engine.actions.base import (
    Action,
    Done,
    Params,
    Plan,
    Problems,
    Target,
    Tx,
    existing,
    post_once,
)
from engine.actions.edits import (
    NAMES_MAX,
    Change,
    Changes,
    Edit,
    Removal,
    change_of,
    check_version,
    confirm,
    counted,
    listed,
    target_of,
    write_change,
)
from engine.actions.fence_budgets import slower_than
from engine.actions.named import taken
from engine.closing import LOOK_AGAIN
from store import control, edits, incidents, inventory, plumbing
from store.ids import new_id
from store.rows import Row

WINDOW_MAX_S = 86_400
NO_ROOM = "NO_ROOM"
"""The reason of a start or a migration that waits for memory or vCPUs."""

SHARE: Any = Field(default=None, ge=1, le=100)
COUNT: Any = Field(default=None, ge=0, le=10_000)
RATIO: Any = Field(
    default=None,
    ge=VCPU_OVERCOMMIT_LEAST,
    le=VCPU_OVERCOMMIT_MOST,
    strict=True,
)


def _memory_ratio(default: float | None) -> Any:
    least, most = MEMORY_OVERCOMMIT_LEAST, MEMORY_OVERCOMMIT_MOST
    return Field(default=default, ge=least, le=most, strict=True)


RATIOS = ("vcpu_overcommit", "memory_overcommit")
"""How far hosts may promise more than they have: with another ratio there may be room."""


class FenceBudgets(Frozen):
    """How many hosts may be fenced in a window without a person; None: no such limit.

    What they mean together is said in `domain.fence_budgets`.
    """

    fences_percent: int | None = SHARE
    rack_fences_max: int | None = COUNT
    rack_fences_percent: int | None = SHARE
    site_fences_max: int | None = COUNT
    site_fences_percent: int | None = SHARE


class Capacity(Frozen):
    """What hosts may promise: so many vCPUs for each of their logical CPUs; None: no limit."""

    vcpu_overcommit: float | None = RATIO


class CreateCluster(FenceBudgets, Capacity, Params):
    """Add a cluster; its profile sets the timing of everything in it."""

    name: str = Field(pattern=NAME)
    profile: Profile = Profile.BALANCED
    virt_type: VirtType = VirtType.KVM
    fence_limit_s: float = Field(default=FENCE_LIMIT_S, ge=1, le=3600)
    fence_window_s: int = Field(default=300, ge=60, le=WINDOW_MAX_S)
    fences_max: int = Field(default=1, ge=0, le=10_000)
    memory_overcommit: float = _memory_ratio(MEMORY_OVERCOMMIT_LEAST)
    starts_per_host: int = Field(default=STARTS_PER_HOST, ge=1, le=STARTS_PER_HOST_MAX)
    make_room: MakeRoom = MakeRoom.OFF
    make_room_max: int = Field(default=MAKE_ROOM_MAX, ge=1, le=MAKE_ROOM_MAX_MOST)
    failback_after_s: int = Field(default=FAILBACK_AFTER_S, ge=0, le=FAILBACK_AFTER_MAX_S)
    soft_step: bool = True


class CreateClusterAction(Action[CreateCluster, None]):
    """`cluster.create`: done within the transaction."""

    params = CreateCluster
    kind = "cluster.create"
    permission = Permission.CLUSTER_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateCluster, problems: Problems) -> Plan[None]:
        """Check that the name is free."""
        problems.extend(await taken(tx, "cluster", params.name))
        cluster_id = new_id()
        target = Target("cluster", cluster_id, params.name, cluster_id)
        return Plan(target=target, facts=None, steps=("write the cluster",))

    async def execute(self, tx: Tx, params: CreateCluster, plan: Plan[None]) -> Done:
        """Write the cluster."""
        plain = params.model_dump(mode="json")
        row = plain | {"id": plan.target.id, "created_at": tx.now}
        await inventory.insert(tx.connection, "cluster", row)
        return Done(summary="created", after=plain)


class ArmCluster(Params):
    """Allow (arm) or stop (disarm) automatic action in a cluster; `mode` says what stops how."""

    cluster_id: UUID
    armed: bool
    mode: DisarmMode = Field(default=DisarmMode.HOLD, exclude_if=lambda m: m is DisarmMode.HOLD)


class ArmClusterAction(Action[ArmCluster, Row]):
    """`cluster.arm`: one row, at once, also while everything else is stuck."""

    params = ArmCluster
    kind = "cluster.arm"
    permission = Permission.CLUSTER_ARM
    priority = PriorityClass.RECOVERY
    idempotent = True

    async def plan(self, tx: Tx, params: ArmCluster, problems: Problems) -> Plan[Row]:
        """Nothing speaks against it, but what would act though it began while disarmed."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        was = cluster["disarm_mode"]
        if not params.armed and params.mode is DisarmMode.IGNORE and was not in (None, params.mode):
            waiting = await incidents.open_in(tx.connection, cluster["id"])
            if waiting:
                problems.append(_would_go_on(cluster, waiting))
        target = Target("cluster", cluster["id"], cluster["name"], cluster["id"])
        return Plan(target=target, facts=cluster, steps=("write the switch",))

    async def execute(self, tx: Tx, params: ArmCluster, plan: Plan[Row]) -> Done:
        """Write the switch; what waited for it judges anew at once, by what is seen then."""
        was, cluster_id = plan.facts, params.cluster_id
        by, reason = tx.context.principal, tx.context.reason
        told: Row = {"mode": params.mode, "by": by, "reason": reason, "at": tx.now}
        await inventory.arm_cluster(tx.connection, cluster_id, armed=params.armed, **told)
        tx.facts.forget("cluster", cluster_id)
        if params.armed:
            for operation_id in await control.waiting_for(tx.connection, cluster_id, DISARMED):
                await post_once(tx, operation_id, plumbing.SIGNAL, LOOK_AGAIN)
        mode = None if params.armed else params.mode.value
        return Done(
            summary="armed" if params.armed else f"disarmed: {mode}",
            before={"armed": was["armed"], "disarm_mode": was["disarm_mode"]},
            after={"armed": params.armed, "disarm_mode": mode},
            data={"armed": params.armed, "disarm_mode": mode},
        )


def _would_go_on(cluster: Row, waiting: Sequence[str]) -> Conflict:
    return Conflict(
        "INCIDENTS_WAIT",
        f"{cluster['name']} is disarmed ({cluster['disarm_mode']}), and the recovery of "
        f"{listed(waiting)} waits; under `ignore` it would go on while nobody is to act",
        next_step="arm the cluster, or cancel those recoveries; then disarm it with `ignore`",
        count=len(waiting),
    )


class ClusterChanges(FenceBudgets, Capacity, Changes):
    """What can be changed of a cluster. Switching automatic action is an action of its own."""

    may_be_null = frozenset(FenceBudgets.model_fields) | frozenset(Capacity.model_fields)

    name: str | None = Field(default=None, pattern=NAME)
    profile: Profile | None = None
    virt_type: VirtType | None = None
    fence_limit_s: float | None = Field(default=None, ge=1, le=3600)
    fence_window_s: int | None = Field(default=None, ge=60, le=WINDOW_MAX_S)
    fences_max: int | None = COUNT
    memory_overcommit: float | None = _memory_ratio(None)
    starts_per_host: int | None = Field(default=None, ge=1, le=STARTS_PER_HOST_MAX)
    make_room: MakeRoom | None = None
    make_room_max: int | None = Field(default=None, ge=1, le=MAKE_ROOM_MAX_MOST)
    failback_after_s: int | None = Field(default=None, ge=0, le=FAILBACK_AFTER_MAX_S)
    soft_step: bool | None = None


class EditCluster(ClusterChanges, Edit):
    """Change a cluster."""

    cluster_id: UUID


class EditClusterAction(Action[EditCluster, Change]):
    """`cluster.edit`: done within the transaction."""

    params = EditCluster
    kind = "cluster.edit"
    permission = Permission.CLUSTER_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    async def plan(self, tx: Tx, params: EditCluster, problems: Problems) -> Plan[Change]:
        """Check the version, and that a new name is free."""
        fields = ClusterChanges.model_fields
        change = await change_of(tx, "cluster", params, params.cluster_id, fields, problems)
        if limit_s := change.values.get("fence_limit_s"):
            problems.extend(await slower_than(tx, change.row, limit_s))
        return Plan(
            target=target_of("cluster", change.row, params.cluster_id),
            facts=change,
            locks=(exclusive("cluster", params.cluster_id),),
            steps=("write the cluster",),
        )

    async def execute(self, tx: Tx, params: EditCluster, plan: Plan[Change]) -> Done:
        """Write what differs."""
        await write_change(tx, "cluster", plan.facts)
        notes = []
        if "profile" in plan.facts.values:
            notes.append("monitors take up the new timing with their next round")
        if "virt_type" in plan.facts.values:
            notes.append("VMs that run keep their type until their next start")
        if not plan.facts.values.keys().isdisjoint(RATIOS):
            notes.append("VMs that run stay where they are")
            await _look_again(tx, params.cluster_id, NO_ROOM)
        if "starts_per_host" in plan.facts.values:
            await _look_again(tx, params.cluster_id, STARTS_AT_LIMIT)
        return plan.facts.done(*notes)


async def _look_again(tx: Tx, cluster_id: UUID, code: str) -> None:
    """Let what waits for room, or for its turn, look again at once: there may be more of it."""
    for operation_id in await control.waiting_for(tx.connection, cluster_id, code):
        await post_once(tx, operation_id, plumbing.SIGNAL, LOOK_AGAIN)


class RemoveCluster(Removal):
    """Remove a cluster in which nothing is left."""

    cluster_id: UUID


INSIDE = {"host": "hosts", "vm": "VMs", "network": "networks", "affinity_group": "affinity groups"}
"""What keeps a cluster from being removed."""


class RemoveClusterAction(Action[RemoveCluster, Row]):
    """`cluster.remove`: done within the transaction; its operations and events stay."""

    params = RemoveCluster
    kind = "cluster.remove"
    permission = Permission.CLUSTER_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: RemoveCluster, problems: Problems) -> Plan[Row]:
        """Check that nothing is left in it, each kind of thing a problem of its own."""
        row = await existing(tx, "cluster", params.cluster_id)
        check_version(params.expected_version, "cluster", row, problems)
        for entity, word in INSIDE.items():
            count, names = await edits.some_of(tx.connection, entity, row["id"], NAMES_MAX)
            problems.unless(
                count == 0,
                Conflict(
                    "CLUSTER_NOT_EMPTY",
                    f"{row['name']} has {counted(count, word.removesuffix('s'), word)}:"
                    f" {listed(names, count)}",
                    next_step=f"remove its {word} first",
                    what=entity,
                    count=count,
                ),
            )
        return Plan(
            target=target_of("cluster", row, row["id"]),
            facts=row,
            locks=(exclusive("cluster", row["id"]),),
            steps=("remove the cluster",),
        )

    async def execute(self, tx: Tx, params: RemoveCluster, plan: Plan[Row]) -> Done:
        """Date its removal, if it is still empty."""
        row = plan.facts
        removed = await edits.remove_cluster(tx.connection, row, tx.now)
        confirm(tx, "cluster", row, written=removed)
        shown = ("name", "profile", "virt_type", "armed", "fence_limit_s", "fences_max")
        return Done(summary="removed", before={name: row[name] for name in shown})

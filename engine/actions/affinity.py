"""Affinity groups: which VMs belong together or apart, and on which hosts.

Races  Two changes that are fine by themselves and contradict each other: each transaction reads the
       groups of the cluster, so the database lets only one of them commit on what it has read.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from pydantic import Field

from domain.affinity import find_contradiction, refuse_contradiction
from domain.context import PriorityClass
from domain.errors import Invalid, NotFound, Refused
from domain.inventory import NAME
from domain.locks import exclusive, shared
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.edits import (
    Change,
    Changes,
    Edit,
    Removal,
    check_version,
    confirm,
    target_of,
)
from engine.actions.named import taken
from engine.affinity import rules_of
from store import affinity, edits, inventory
from store.ids import new_id
from store.rows import Row

MEMBERS_MAX = 1000
"""VMs or hosts in one group; far more than a rule about them can be kept for."""

COLUMNS = ("name", "together", "hard")


class CreateAffinityGroup(Params):
    """Keep VMs together or apart; with hosts, keep each of them on those hosts or off them."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    together: bool
    hard: bool = False
    vm_ids: tuple[UUID, ...] = Field(default=(), max_length=MEMBERS_MAX)
    host_ids: tuple[UUID, ...] = Field(default=(), max_length=MEMBERS_MAX)


class CreateAffinityGroupAction(Action[CreateAffinityGroup, Row]):
    """`affinity.create`: done within the transaction. VMs that run already stay where they are."""

    params = CreateAffinityGroup
    kind = "affinity.create"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateAffinityGroup, problems: Problems) -> Plan[Row]:
        """Check the name, the members, and that hard rules can all be kept."""
        await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "affinity_group", params.name))
        group: Row = {"id": new_id(), "created_at": tx.now} | params.model_dump()
        group |= {"vm_ids": _once(params.vm_ids), "host_ids": _once(params.host_ids)}
        await _check_members(tx, params.cluster_id, group, problems)
        others = await affinity.groups(tx.connection, cluster_id=params.cluster_id)
        await check_rules(tx, params.cluster_id, [*others, group], {params.name}, problems)
        return Plan(
            target=Target("affinity_group", group["id"], params.name, params.cluster_id),
            facts=group,
            locks=(shared("cluster", params.cluster_id),),
            steps=("write the group",),
        )

    async def execute(self, tx: Tx, params: CreateAffinityGroup, plan: Plan[Row]) -> Done:
        """Write the group and its members."""
        group = plan.facts
        columns = ("id", "cluster_id", "created_at", *COLUMNS)
        await inventory.insert(
            tx.connection, "affinity_group", {name: group[name] for name in columns}
        )
        await _put_vms(tx, group["id"], group["vm_ids"])
        await affinity.put_hosts(tx.connection, group["id"], group["host_ids"])
        return Done(summary="created", after=params.model_dump(mode="json"))


class AffinityGroupChanges(Changes):
    """What can be changed of a group; members are given whole."""

    name: str | None = Field(default=None, pattern=NAME)
    together: bool | None = None
    hard: bool | None = None
    vm_ids: tuple[UUID, ...] | None = Field(default=None, max_length=MEMBERS_MAX)
    host_ids: tuple[UUID, ...] | None = Field(default=None, max_length=MEMBERS_MAX)


class EditAffinityGroup(AffinityGroupChanges, Edit):
    """Change an affinity group."""

    affinity_group_id: UUID


class EditAffinityGroupAction(Action[EditAffinityGroup, Change]):
    """`affinity.edit`: done within the transaction. VMs that run already stay where they are."""

    params = EditAffinityGroup
    kind = "affinity.edit"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    async def plan(self, tx: Tx, params: EditAffinityGroup, problems: Problems) -> Plan[Change]:
        """Check the version, a new name, new members, and that hard rules can all be kept."""
        row = await _group(tx, params.affinity_group_id)
        check_version(params.expected_version, "affinity_group", row, problems)
        said = params.model_dump(include=set(AffinityGroupChanges.model_fields))
        said |= {name: _once(said[name]) for name in ("vm_ids", "host_ids") if name in said}
        change = Change(row, {name: value for name, value in said.items() if row[name] != value})
        if "name" in change.values:
            problems.extend(await taken(tx, "affinity_group", change.values["name"]))
        after = row | change.values
        await _check_members(tx, row["cluster_id"], change.values, problems)
        groups = await affinity.groups(tx.connection, cluster_id=row["cluster_id"])
        others = [group for group in groups if group["id"] != row["id"]]
        await check_rules(tx, row["cluster_id"], [*others, after], {after["name"]}, problems)
        return Plan(
            target=target_of("affinity_group", row),
            facts=change,
            locks=(exclusive("affinity_group", row["id"]),),
            steps=("write the group",),
        )

    async def execute(self, tx: Tx, params: EditAffinityGroup, plan: Plan[Change]) -> Done:
        """Write what differs."""
        row, values = plan.facts.row, plan.facts.values
        if values:
            columns = {name: values[name] for name in COLUMNS if name in values}
            connection, version = tx.connection, row["version"]
            written = await edits.edit(connection, "affinity_group", row["id"], version, columns)
            confirm(tx, "affinity_group", row, written=written)
        if "vm_ids" in values:
            await _put_vms(tx, row["id"], values["vm_ids"])
        if "host_ids" in values:
            await affinity.put_hosts(tx.connection, row["id"], values["host_ids"])
        plain = Change(_plain(row), {name: _plain(values)[name] for name in values})
        return plain.done(*(["VMs that run stay where they are"] if values else []))


class DeleteAffinityGroup(Removal):
    """Delete an affinity group; its VMs stay where they are."""

    affinity_group_id: UUID


class DeleteAffinityGroupAction(Action[DeleteAffinityGroup, Row]):
    """`affinity.delete`: done within the transaction."""

    params = DeleteAffinityGroup
    kind = "affinity.delete"
    permission = Permission.VM_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: DeleteAffinityGroup, problems: Problems) -> Plan[Row]:
        """Check the version."""
        row = await _group(tx, params.affinity_group_id)
        check_version(params.expected_version, "affinity_group", row, problems)
        return Plan(
            target=target_of("affinity_group", row),
            facts=row,
            locks=(exclusive("affinity_group", row["id"]),),
            steps=("delete the group",),
        )

    async def execute(self, tx: Tx, params: DeleteAffinityGroup, plan: Plan[Row]) -> Done:
        """Delete the group and its memberships."""
        row = plan.facts
        await _put_vms(tx, row["id"], ())
        deleted = await affinity.delete(tx.connection, row["id"], row["version"])
        confirm(tx, "affinity_group", row, written=deleted)
        shown = (*COLUMNS, "vm_ids", "host_ids")
        return Done(summary="deleted", before={name: _plain(row)[name] for name in shown})


async def check_rules(
    tx: Tx,
    cluster_id: UUID,
    groups: Sequence[Row],
    touched: set[str],
    problems: Problems,
    names: Mapping[UUID, str] | None = None,
) -> None:
    """Add a problem when hard rules cannot all be kept, and one of the touched ones is among them.

    Contradictions among others were there before (a host went), and are no reason against this.
    `names` are those of VMs that are not written yet.
    """
    left = list(rules_of(groups))
    hosts = [host["id"] for host in await tx.facts.hosts_of(cluster_id)] or None
    while (found := find_contradiction(left, host_ids=hosts)) is not None:
        if touched & set(found.rules):
            break
        left = [rule for rule in left if rule.name not in found.rules]
    if found is None:
        return
    named = sorted({vm_id for rule in left for vm_id in rule.vm_ids})
    rows = await inventory.get_many(tx.connection, "vm", named)
    known = {vm_id: row["name"] for vm_id, row in rows.items()} | dict(names or {})
    try:
        refuse_contradiction(left, names=known, host_ids=hosts)
    except Refused as problem:
        problems.append(problem)


async def _group(tx: Tx, group_id: UUID) -> Row:
    row = await existing(tx, "affinity_group", group_id)
    (whole,) = await affinity.groups(tx.connection, id=row["id"])
    return whole


async def _put_vms(tx: Tx, group_id: UUID, vm_ids: Iterable[UUID]) -> None:
    """Write a group's VMs; to whoever read one that comes in or goes out, it has changed."""
    for vm_id in await affinity.put_vms(tx.connection, group_id, vm_ids):
        tx.facts.forget("vm", vm_id)


async def _check_members(tx: Tx, cluster_id: UUID, given: Row, problems: Problems) -> None:
    for entity in ("vm", "host"):
        wanted: tuple[UUID, ...] = given.get(f"{entity}_ids", ())
        known = await inventory.get_many(tx.connection, entity, list(wanted))
        for member in wanted:
            problems.extend(_unfit(entity, member, known.get(member), cluster_id))


def _unfit(entity: str, member: UUID, row: Row | None, cluster_id: UUID) -> tuple[Refused, ...]:
    word = entity.upper() if entity == "vm" else entity
    if row is None:
        detail = f"there is no {word} {member}"
        step = f"list the {word}s and use their ids"
        return (NotFound(f"{entity.upper()}_NOT_FOUND", detail, next_step=step, id=str(member)),)
    if row["cluster_id"] == cluster_id:
        return ()
    return (
        Invalid(
            "CLUSTER_DIFFERS",
            f"{word} {row['name']} is in another cluster than the group",
            next_step=f"name {word}s of the group's own cluster",
            name=row["name"],
        ),
    )


def _once(ids: Iterable[UUID]) -> tuple[UUID, ...]:
    return tuple(sorted(set(ids)))


def _plain(group: Row) -> Row:
    """A group as JSON has it."""
    members = {name: group[name] for name in ("vm_ids", "host_ids") if name in group}
    return group | {name: [str(member) for member in ids] for name, ids in members.items()}

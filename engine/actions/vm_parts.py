"""What a VM is made of beyond its own row: network cards, what it waits for, affinity groups.

Each function only reads, and adds every reason against what is wanted to `problems`.

Races  Two VMs that are given one address: the unique key lets one of them commit, and the other's
       next try finds the address taken. Two changes that close a circle of dependencies together:
       each has read the other's edges, so the database lets only one commit on what it read.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

from domain.base import Frozen
from domain.dependencies import find_cycle, refuse_cycle
from domain.errors import Conflict, Invalid, NotFound, Refused
from domain.inventory import NicModel, mac_of
from engine.actions.affinity import check_rules
from engine.actions.base import Problems, Tx
from store import affinity, inventory, vms
from store.rows import Row

NICS_MAX = 32
DEPENDENCIES_MAX = 64
GROUPS_MAX = 64

Mac = Annotated[
    str,
    StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$"),
]


class NicWish(Frozen):
    """One network card; without an address the engine gives it one, the same for life."""

    network_id: UUID
    mac: Mac | None = None
    model: NicModel = NicModel.VIRTIO


@dataclass(frozen=True)
class Subject:
    """The VM that is written: a new one, or one as it is now."""

    id: UUID
    name: str
    cluster_id: UUID
    cards: tuple[Row, ...] = field(default=())


async def plan_cards(
    tx: Tx, vm: Subject, wishes: Sequence[NicWish], problems: Problems
) -> tuple[Row, ...]:
    """The cards as rows, each with its address. A card at the same place keeps what it has."""
    await _check_networks(tx, vm, wishes, problems)
    said = [wish.mac for wish in wishes if wish.mac is not None]
    await _check_macs(tx, vm, said, problems)
    macs = dict(enumerate(wish.mac for wish in wishes))
    for place, card in enumerate(vm.cards[: len(wishes)]):
        if macs[place] is None and card["mac"] not in said:
            macs[place] = card["mac"]
    found = await _with_addresses(tx, vm, macs)
    return tuple(
        {"network_id": wish.network_id, "mac": found[place], "model": wish.model.value}
        for place, wish in enumerate(wishes)
    )


async def _with_addresses(tx: Tx, vm: Subject, macs: dict[int, str | None]) -> dict[int, str]:
    """Give each place without an address the first of its own that nobody has."""
    found = {place: mac for place, mac in macs.items() if mac is not None}
    for turn in count():
        open_places = [place for place in macs if place not in found]
        if not open_places:
            break
        wanted = {place: mac_of(vm.id, place + turn * NICS_MAX) for place in open_places}
        owners = await vms.mac_owners(tx.connection, wanted.values())
        for place, mac in wanted.items():
            taken = mac in owners and owners[mac]["vm_id"] != vm.id
            if not taken and mac not in found.values():
                found[place] = mac
    return found


async def _check_networks(
    tx: Tx, vm: Subject, wishes: Sequence[NicWish], problems: Problems
) -> None:
    wanted = sorted({wish.network_id for wish in wishes})
    known = await inventory.get_many(tx.connection, "network", wanted)
    for network_id in wanted:
        row = known.get(network_id)
        if row is None:
            problems.append(
                NotFound(
                    "NETWORK_NOT_FOUND",
                    f"there is no network {network_id}",
                    next_step="list the networks and use one of their ids",
                    id=str(network_id),
                )
            )
        elif row["cluster_id"] != vm.cluster_id:
            problems.append(_other_cluster("network", row["name"], vm.name))


async def _check_macs(tx: Tx, vm: Subject, said: Sequence[str], problems: Problems) -> None:
    for mac, times in sorted(Counter(said).items()):
        problems.unless(
            times == 1,
            Invalid(
                "MAC_TWICE",
                f"{times} cards of {vm.name} have the address {mac}",
                next_step="give each card an address of its own, or none",
                mac=mac,
            ),
        )
    owners = await vms.mac_owners(tx.connection, set(said))
    for mac, owner in sorted(owners.items()):
        problems.unless(owner["vm_id"] == vm.id, mac_taken(mac, owner["name"]))


def mac_taken(mac: str, owner: str) -> Conflict:
    """The refusal of an address that another VM has."""
    return Conflict(
        "MAC_TAKEN",
        f"{owner} has the address {mac} already",
        next_step="choose another address, or none: the engine finds a free one",
        mac=mac,
        vm=owner,
    )


async def check_dependencies(
    tx: Tx, vm: Subject, others: Iterable[UUID], problems: Problems, *, new: bool = False
) -> None:
    """Check that each is there, in the same cluster, and that no VM would wait for itself.

    A new VM can close no circle: nothing waits for it yet.
    """
    wanted = sorted(set(others))
    known = await inventory.get_many(tx.connection, "vm", wanted)
    for other in wanted:
        row = known.get(other)
        if row is None:
            problems.append(_no_vm(other))
        elif row["cluster_id"] != vm.cluster_id:
            problems.append(_other_cluster("VM", row["name"], vm.name))
    if new:
        return
    edges = await _circle(tx, vm.id, tuple(wanted))
    cycle = find_cycle(edges)
    if cycle is not None:
        rows = await inventory.get_many(tx.connection, "vm", sorted(cycle))
        names = {vm_id: row["name"] for vm_id, row in rows.items()}
        try:
            refuse_cycle(edges, names)
        except Refused as problem:
            problems.append(problem)


async def _circle(tx: Tx, vm_id: UUID, wanted: tuple[UUID, ...]) -> dict[UUID, tuple[UUID, ...]]:
    """What waits for what on the ways from a VM back to itself; empty when none leads back.

    Only what the VM would come to wait for is read, level by level: nothing else can close a
    circle, and what is not read stays free for others to change.
    """
    edges = {vm_id: wanted}
    level = set(wanted)
    while level and vm_id not in level:
        found = await tx.facts.waits_of(level - edges.keys())
        edges |= found
        level = {other for others in found.values() for other in others}
    return edges if level else {}


async def check_groups(
    tx: Tx, vm: Subject, wanted: Iterable[UUID], problems: Problems
) -> tuple[UUID, ...]:
    """Check that each is there, and that hard rules can all be kept; the groups by id, once."""
    ids = tuple(sorted(set(wanted)))
    groups = await affinity.groups(tx.connection, cluster_id=vm.cluster_id)
    known = {group["id"] for group in groups}
    for group_id in ids:
        problems.unless(
            group_id in known,
            NotFound(
                "AFFINITY_GROUP_NOT_FOUND",
                f"there is no affinity group {group_id} in the cluster of {vm.name}",
                next_step="list the affinity groups of its cluster and use one of their ids",
                id=str(group_id),
            ),
        )
    after = [_with_member(group, vm.id, group["id"] in ids) for group in groups]
    touched = {group["name"] for group in groups if group["id"] in ids}
    await check_rules(tx, vm.cluster_id, after, touched, problems, {vm.id: vm.name})
    return ids


def _with_member(group: Row, vm_id: UUID, member: bool) -> Row:
    others = [other for other in group["vm_ids"] if other != vm_id]
    return group | {"vm_ids": tuple(sorted([*others, vm_id] if member else others))}


def _no_vm(vm_id: UUID) -> NotFound:
    return NotFound(
        "VM_NOT_FOUND",
        f"there is no VM {vm_id}",
        next_step="list the VMs and use one of their ids",
        id=str(vm_id),
    )


def _other_cluster(word: str, name: str, vm: str) -> Invalid:
    return Invalid(
        "CLUSTER_DIFFERS",
        f"{word} {name} is in another cluster than {vm}",
        next_step=f"choose a {word} of the same cluster",
        name=name,
        vm=vm,
    )

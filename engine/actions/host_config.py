"""Hosts as configuration: adding, changing and removing them.

Another address is another machine, and a removed host is not watched any more. So both need a host
that is out of service and on which no copy of ours may run: none that is active, and none that was
held to be lost under a certificate that is void.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from domain.addresses import place_of
from domain.context import PriorityClass
from domain.errors import Conflict, Refused
from domain.hosts import HostEvent
from domain.inventory import NAME, PLACE, HostState, RunState
from domain.locks import exclusive, shared
from domain.orders import ActivateHostOrder, HostRef
from domain.permissions import Permission
from domain.profiles import Profile, policy_for
from domain.ssh_access import fingerprint
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.edits import (
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
)
from engine.actions.fence_devices import SecretSealer
from engine.actions.named import taken
from engine.actions.ssh_access import (
    NO_CHANGE,
    Access,
    AccessChange,
    access_change,
    write_access,
)
from store import edits, failbacks, hosts, incidents, inventory
from store.ids import new_id
from store.rows import Row

SCHEMES = r"^(qemu\+(tcp|tls|ssh)|test(\+tcp)?)://[^\s]{0,480}$"
STAYS = ("name", "uri", "own_host", "rack", "site", "epoch")
"""What the audit event of a removal keeps of a host."""


def _without_password(uri: str) -> str:
    # Addresses are shown, logged, and kept with what was asked for, also where it was refused.
    if urlsplit(uri).password is not None:
        raise PydanticCustomError(
            "uri_with_password",
            "the address holds a password: leave it out, and put it into libvirt's auth file",
        )
    return uri


Address = Annotated[str, Field(pattern=SCHEMES), AfterValidator(_without_password)]


class AddHost(Params):
    """Add a host and bring it into service."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    uri: Address
    own_host: bool = False  # the engine itself runs there: it is never fenced
    rack: str = Field(default="", pattern=PLACE)  # what fails together; empty: not told
    site: str = Field(default="", pattern=PLACE)


class AddHostAction(Action[AddHost, Row]):
    """`host.add`: written at once, then activated."""

    params = AddHost
    kind = "host.add"
    permission = Permission.HOST_CONFIGURE
    workflow = "ActivateHost"
    retryable = False  # the host is there: it is activated instead

    async def plan(self, tx: Tx, params: AddHost, problems: Problems) -> Plan[Row]:
        """Check that name and address are free."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "host", params.name))
        problems.extend(await _address_taken(tx, params.uri))
        host_id = new_id()
        return Plan(
            target=Target("host", host_id, params.name, params.cluster_id),
            facts=cluster,
            locks=(exclusive("host", host_id), shared("cluster", params.cluster_id)),
            steps=("write the host", "wait for its answer", "settle its copies", "admit it"),
        )

    async def execute(self, tx: Tx, params: AddHost, plan: Plan[Row]) -> Done:
        """Write the host and order its activation."""
        host_id = plan.target.id
        row = params.model_dump() | {
            "id": host_id,
            "state": HostState.RECONCILING.value,
            "state_reason": "just added",
            "state_since": tx.now,
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "host", row)
        order = ActivateHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_for(Profile(plan.facts["profile"]), power_on_answer_s=30),
            host=HostRef(host_id=host_id, name=params.name, uri=params.uri, epoch=0),
            power_on=False,
        )
        return Done(order=order, after=params.model_dump(mode="json"))

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Leave the host out of service, so that it can be activated or removed."""
        why = "its activation was cancelled before it began"
        await hosts.move(tx.connection, operation["target_id"], HostEvent.FAILED, why, tx.now)
        return "the host is there, out of service"


class HostChanges(Changes):
    """What can be changed of a host. `ssh` is given as a whole; null takes it away."""

    may_be_null = frozenset({"ssh"})

    name: str | None = Field(default=None, pattern=NAME)
    uri: Address | None = None
    own_host: bool | None = None
    rack: str | None = Field(default=None, pattern=PLACE)
    site: str | None = Field(default=None, pattern=PLACE)
    ssh: Access | None = None


PLAIN = tuple(field for field in HostChanges.model_fields if field != "ssh")


@dataclass(frozen=True)
class HostChange:
    """What is to change of a host, and of the SSH access to it."""

    change: Change
    access: AccessChange


class EditHost(HostChanges, Edit):
    """Change a host."""

    host_id: UUID


class EditHostAction(Action[EditHost, HostChange]):
    """`host.edit`: done within the transaction; the machine itself is not asked."""

    params = EditHost
    kind = "host.edit"
    permission = Permission.HOST_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    def __init__(self, sealer: SecretSealer) -> None:
        self._sealer = sealer

    async def plan(self, tx: Tx, params: EditHost, problems: Problems) -> Plan[HostChange]:
        """Check version and name, and whether another address may be given now."""
        change = await change_of(tx, "host", params, params.host_id, PLAIN, problems)
        host, access = change.row, NO_CHANGE
        if "uri" in change.values:
            problems.extend(await _address_taken(tx, change.values["uri"], host["id"]))
            problems.extend(_in_service(host))
            problems.extend(await _copies(tx, host))
        if "ssh" in params.model_fields_set:
            after = host | change.values
            access = await access_change(tx, self._sealer, after, params.ssh, problems)
        return Plan(
            target=target_of("host", host),
            facts=HostChange(change, access),
            state=host["state"],
            locks=(exclusive("host", host["id"]), shared("cluster", host["cluster_id"])),
            steps=("write the host",),
        )

    async def execute(self, tx: Tx, params: EditHost, plan: Plan[HostChange]) -> Done:
        """Write what differs; for another address the statement itself asks for the conditions."""
        change, access = plan.facts.change, plan.facts.access
        if not change.values and not access.changes:
            return change.done()
        row = change.row
        write = edits.move_address if "uri" in change.values else edits.edit_host
        written = await write(tx.connection, row["id"], row["version"], change.values)
        confirm(tx, "host", row, written=written)
        await write_access(tx, self._sealer, row, access)
        return _edited(change, access)


def _edited(change: Change, access: AccessChange) -> Done:
    names = sorted(change.values)
    notes = ["check that its fence devices are those of that machine"] if "uri" in names else []
    if not access.changes:
        return change.done(*notes)
    if access.given is not None:
        notes.append(f"its SSH key has to be {fingerprint(access.given.host_key)}")
    summary = "; ".join((f"changed {', '.join((*names, 'ssh'))}", *notes))
    before = change.before | access.told_before()
    return Done(summary=summary, before=before, after=change.values | access.told())


class RemoveHost(Removal):
    """Remove a host that is out of service."""

    host_id: UUID


@dataclass(frozen=True)
class Leaving:
    """A host that is to go, with what goes with it."""

    host: Row
    devices: Sequence[Row]
    groups: Sequence[Row]


class RemoveHostAction(Action[RemoveHost, Leaving]):
    """`host.remove`: done within the transaction; its runs, incidents and certificates stay."""

    params = RemoveHost
    kind = "host.remove"
    permission = Permission.HOST_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: RemoveHost, problems: Problems) -> Plan[Leaving]:
        """Check that nothing runs or may run there, and that nothing depends on it."""
        host = await existing(tx, "host", params.host_id)
        check_version(params.expected_version, "host", host, problems)
        problems.extend(await _copies(tx, host))
        for incident in await incidents.open_of(tx.connection, host["id"]):
            problems.append(
                Conflict(
                    "INCIDENT_OPEN",
                    f"{host['name']} has an open incident, of its epoch {incident['epoch']}",
                    next_step=f"see it through: `holdfast incident show {incident['id']}`",
                    incident_id=str(incident["id"]),
                )
            )
        groups = await edits.affinity_of(tx.connection, host["id"])
        problems.extend(_last_of(host, groups))
        devices = await inventory.listing(tx.connection, "fence_device", host_id=host["id"])
        return Plan(
            target=target_of("host", host),
            facts=Leaving(host, devices, groups),
            state=host["state"],
            locks=(exclusive("host", host["id"]), shared("cluster", host["cluster_id"])),
            steps=("delete its fence devices, observations and samples", "remove the host"),
        )

    async def execute(self, tx: Tx, params: RemoveHost, plan: Plan[Leaving]) -> Done:
        """Date its removal, if the conditions still hold, and delete what is about its present."""
        host, devices = plan.facts.host, [row["name"] for row in plan.facts.devices]
        groups = [row["name"] for row in plan.facts.groups]
        removed = await edits.remove_host(tx.connection, host, tx.now)
        confirm(tx, "host", host, written=removed)
        homeless = await failbacks.forget_home(tx.connection, host["id"])
        having = counted(len(devices), "fence device", "fence devices")
        leaving = counted(len(groups), "affinity group", "affinity groups")
        notes = [f"with {having}: {listed(devices)}"] if devices else []
        notes += [f"taken out of {leaving}: {listed(groups)}"] if groups else []
        notes += [f"no longer the home of {listed(homeless)}"] if homeless else []
        notes.append("nothing was changed on the machine itself")
        before = {name: host[name] for name in STAYS} | {"fence_devices": devices}
        return Done(summary="; ".join(("removed", *notes)), before=before)

    def forbidden(
        self, params: RemoveHost, plan: Plan[Leaving], allowed: tuple[str, ...]
    ) -> Refused:
        """It is in service, or on its way there or out."""
        return _out_of_service_first(plan.facts.host, "remove it")


def _last_of(host: Row, groups: Sequence[Row]) -> list[Refused]:
    """A group that names hosts means something else once it names none."""
    alone = [row["name"] for row in groups if row["hosts"] == 1]
    if not alone:
        return []
    return [
        Conflict(
            "AFFINITY_NEEDS_HOST",
            f"{host['name']} is the only host of "
            f"{counted(len(alone), 'affinity group', 'affinity groups')}: {listed(alone)}",
            next_step="give them another host, or remove them",
            host=host["name"],
            count=len(alone),
        )
    ]


async def _address_taken(tx: Tx, uri: str, own: UUID | None = None) -> list[Refused]:
    """A second host at one machine would take the first one's guests for old copies."""
    place = place_of(uri)
    return [
        Conflict(
            "URI_TAKEN",
            f"there is a host at {row['uri']} already: {row['name']}",
            next_step="use that host, or correct the address",
            uri=uri,
            host=row["name"],
        )
        for row in await inventory.listing(tx.connection, "host")
        if row["id"] != own and place_of(row["uri"]) == place
    ]


def _in_service(host: Row) -> list[Refused]:
    if host["state"] in edits.OUT_OF_SERVICE:
        return []
    return [_out_of_service_first(host, "change its address")]


def _out_of_service_first(host: Row, what: str) -> Refused:
    allowed = " or ".join(state.value for state in edits.OUT_OF_SERVICE)
    return Conflict(
        "HOST_STATE_FORBIDS",
        f"{host['name']} is {host['state']}; to {what} it has to be {allowed}",
        next_step=f"take it out of service, then {what}",
        host=host["name"],
        state=host["state"],
    )


async def _copies(tx: Tx, host: Row) -> list[Refused]:
    """Why a host is not free of our VMs: those that run there, and those that may."""
    found = await edits.copies_on(tx.connection, host["id"])
    running = [row["name"] for row in found if row["state"] != RunState.LOST]
    perhaps = [row["name"] for row in found if row["state"] == RunState.LOST]
    problems: list[Refused] = []
    if running:
        problems.append(
            Conflict(
                "HOST_RUNS_VMS",
                f"{counted(len(running), 'VM runs', 'VMs run')} on {host['name']}:"
                f" {listed(running)}",
                next_step="stop them, or start them elsewhere",
                host=host["name"],
                count=len(running),
            )
        )
    if perhaps:
        problems.append(
            Conflict(
                "HOST_MAY_RUN_VMS",
                f"{counted(len(perhaps), 'VM', 'VMs')} may still run on {host['name']}, whose "
                f"death certificate is void: {listed(perhaps)}",
                next_step=f"bring it back with `holdfast host activate {host['name']}`, which "
                "settles them",
                host=host["name"],
                count=len(perhaps),
            )
        )
    return problems

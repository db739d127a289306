"""Power controllers of hosts: adding, changing and removing them.

A device may be changed while its host is being recovered: a wrong password is often what a recovery
waits for. It is not removed meanwhile, since how many devices there are is what proof is asked for.
None is added while a rehearsal cuts one level after the other: that would shift them.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from pydantic import Field, SecretStr

from domain.context import PriorityClass
from domain.controllers import controller_of
from domain.errors import Conflict, Refused
from domain.inventory import NAME, FenceDevice
from domain.locks import Lock, exclusive, shared
from domain.permissions import Permission
from domain.topology import provable, survives_power_loss
from engine.actions.base import (
    Action,
    Done,
    Look,
    Params,
    Plan,
    Problems,
    Target,
    Tx,
    existing,
)
from engine.actions.edits import (
    Change,
    Changes,
    Edit,
    Removal,
    change_of,
    check_version,
    confirm,
    target_of,
    write_change,
)
from engine.actions.fence_budgets import TIMES, devices_of, too_slow, too_slow_without
from engine.actions.named import taken
from engine.actions.rehearsals import RehearseFencingAction
from engine.refs import fence_device, policy_of
from store import edits, inventory, locks
from store.ids import new_id
from store.rows import Row

T = TypeVar("T")
PLAIN = ("name", "agent", "deadline_s", "level", "delay_s", "retries", "shares_power")
"""Fields that are written as they are said."""

HANDED_OVER = frozenset({"agent", "options"})
"""Columns whose change makes a fence device another one, as a change of its secrets does."""


TESTED = ("last_tested_at", "test_reading", "test_took_s", "test_identity", "silent_since")
SAID = ("last_reading", "last_read_at", "rehearsal", "rehearsed_at", *TESTED)
"""Columns of what a device has said, which may have been another device's word."""


class SecretSealer(Protocol):
    """Encrypts what must not be readable in the database."""

    def seal(self, secrets: dict[str, str]) -> bytes:
        """Named secrets as one opaque value."""
        ...

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        """What was sealed; Invalid when it was sealed with another key."""
        ...


class AgentCheck(Protocol):
    """Knows the fence agents of this machine."""

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Invalid when the agent does not exist or an option or secret does not fit it.

        What an agent says about itself is kept: only its first check may take long.
        """
        ...


class AddFenceDevice(Params):
    """Give a host a power controller."""

    host_id: UUID
    name: str = Field(pattern=NAME)
    agent: str = Field(pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str] = Field(default_factory=dict, max_length=64)
    secrets: dict[str, SecretStr] = Field(default_factory=dict, max_length=8)
    deadline_s: float = Field(default=10.0, gt=0, le=300)
    level: int = Field(default=1, ge=1, le=9)
    delay_s: float = Field(default=0.0, ge=0, le=300)
    retries: int = Field(default=0, ge=0, le=9)
    shares_power: bool = True


class AddFenceDeviceAction(Action[AddFenceDevice, Row]):
    """`fence.add`: checked against the agent's own metadata, secrets sealed."""

    params = AddFenceDevice
    kind = "fence.add"
    permission = Permission.FENCE_CONFIGURE
    priority = PriorityClass.INVENTORY

    def __init__(self, sealer: SecretSealer, agents: AgentCheck) -> None:
        self._sealer = sealer
        self._agents = agents

    async def prepare(self, params: AddFenceDevice, look: Look) -> None:
        """Let the agent tell its options, which starts a process."""
        await _known(self._agents, params.agent)

    async def plan(self, tx: Tx, params: AddFenceDevice, problems: Problems) -> Plan[Row]:
        """Check the name, and the options against the agent's metadata."""
        host = await existing(tx, "host", params.host_id)
        problems.extend(await taken(tx, "fence_device", params.name))
        try:
            await self._agents.check(params.agent, params.options, revealed(params.secrets))
        except Refused as problem:
            problems.append(problem)
        problems.extend(await _duplicate(tx, params.agent, params.options))
        device = FenceDevice(id=new_id(), **params.model_dump(exclude={"secrets"}))
        problems.extend(await too_slow(tx, host, device))
        return Plan(
            target=Target("fence_device", device.id, params.name, host["cluster_id"]),
            facts=host,
            locks=(*await _rehearsed(tx, host), shared("cluster", host["cluster_id"])),
            steps=("write the fence device",),
        )

    async def execute(self, tx: Tx, params: AddFenceDevice, plan: Plan[Row]) -> Done:
        """Write the device."""
        plain = params.model_dump(exclude={"secrets"})
        row = plain | {
            "id": plan.target.id,
            "secrets": self._sealer.seal(revealed(params.secrets)),
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "fence_device", row)
        data = {"host": plan.facts["name"], "agent": params.agent}
        after = params.model_dump(mode="json", exclude={"secrets"})
        return Done(summary="added", data=data, after=after)


async def _rehearsed(tx: Tx, host: Row) -> tuple[Lock, ...]:
    """The lock on a host whose devices are rehearsed; none where something else is under way."""
    holder = await locks.holder(tx.connection, "host", host["id"])
    rehearsed = holder is not None and holder.kind == RehearseFencingAction.kind
    return (shared("host", host["id"]),) if rehearsed else ()


class FenceDeviceChanges(Changes):
    """What can be changed of a fence device. Of options and secrets, null takes one away."""

    name: str | None = Field(default=None, pattern=NAME)
    agent: str | None = Field(default=None, pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str | None] | None = Field(default=None, max_length=64)
    secrets: dict[str, SecretStr | None] | None = Field(default=None, max_length=8)
    deadline_s: float | None = Field(default=None, gt=0, le=300)
    level: int | None = Field(default=None, ge=1, le=9)
    delay_s: float | None = Field(default=None, ge=0, le=300)
    retries: int | None = Field(default=None, ge=0, le=9)
    shares_power: bool | None = None


class EditFenceDevice(FenceDeviceChanges, Edit):
    """Change a fence device."""

    fence_device_id: UUID


@dataclass(frozen=True)
class Rekeyed:
    """A change of a fence device; `secrets` are all of its secrets where any of them changes."""

    change: Change
    host: Row
    secrets: Mapping[str, str] | None
    secrets_changed: tuple[str, ...]


class EditFenceDeviceAction(Action[EditFenceDevice, Rekeyed]):
    """`fence.edit`: the whole is checked against the agent's metadata again, secrets sealed."""

    params = EditFenceDevice
    kind = "fence.edit"
    permission = Permission.FENCE_CONFIGURE
    priority = PriorityClass.INVENTORY
    idempotent = True

    def __init__(self, sealer: SecretSealer, agents: AgentCheck) -> None:
        self._sealer = sealer
        self._agents = agents

    async def prepare(self, params: EditFenceDevice, look: Look) -> None:
        """Let the agent tell its options, which starts a process."""
        if not (params.agent or params.options or params.secrets):
            return
        row = await look("fence_device", params.fence_device_id)
        agent = params.agent or (row and row["agent"])
        if agent:
            await _known(self._agents, agent)

    async def plan(self, tx: Tx, params: EditFenceDevice, problems: Problems) -> Plan[Rekeyed]:
        """Check version, name, and what the agent will be given."""
        device = params.fence_device_id
        change = await change_of(tx, "fence_device", params, device, PLAIN, problems)
        row = change.row
        host = await existing(tx, "host", row["host_id"])
        options = merged(row["options"], params.options or {})
        if options != row["options"]:
            change = Change(row, change.values | {"options": options})
        before = self._opened(row, params, change, problems)
        after = merged(before, params.secrets or {})
        moved = sorted(key for key in before | after if before.get(key) != after.get(key))
        if moved or change.values.keys() & HANDED_OVER:
            agent = (row | change.values)["agent"]
            problems.extend(await self._misfit(agent, options, after))
        if change.values.keys() & HANDED_OVER:
            agent = (row | change.values)["agent"]
            problems.extend(await _duplicate(tx, agent, options, row["id"]))
        if change.values.keys() & TIMES:
            problems.extend(await too_slow(tx, host, fence_device(row | change.values)))
        return Plan(
            target=target_of("fence_device", row, host["cluster_id"]),
            facts=Rekeyed(change, host, revealed(after) if moved else None, tuple(moved)),
            locks=(exclusive("fence_device", row["id"]), shared("cluster", host["cluster_id"])),
            steps=("write the fence device",),
        )

    def _opened(
        self, row: Row, params: EditFenceDevice, change: Change, problems: Problems
    ) -> dict[str, SecretStr]:
        """The secrets where they matter; none if they cannot be opened and others are given."""
        if not params.secrets and not change.values.keys() & HANDED_OVER:
            return {}
        try:
            return self._sealer.open(row["secrets"])
        except Refused as problem:
            if not params.secrets:
                problems.append(problem)
            return {}

    async def _misfit(
        self, agent: str, options: dict[str, str], secrets: dict[str, SecretStr]
    ) -> list[Refused]:
        try:
            await self._agents.check(agent, options, revealed(secrets))
        except Refused as problem:
            return [problem]
        return []

    async def execute(self, tx: Tx, params: EditFenceDevice, plan: Plan[Rekeyed]) -> Done:
        """Write what differs; the last reading goes where it may have been another device's."""
        facts = plan.facts
        change, values = facts.change, dict(facts.change.values)
        if facts.secrets is not None:
            values["secrets"] = self._sealer.seal(dict(facts.secrets))
        if facts.secrets is not None or values.keys() & HANDED_OVER:
            values |= dict.fromkeys(SAID)
        await write_change(tx, "fence_device", Change(change.row, values))
        return _told(facts)


def _told(facts: Rekeyed) -> Done:
    """What changed: of secrets only the names."""
    change, data = facts.change, {"host": facts.host["name"]}
    if not change.values and not facts.secrets_changed:
        return Done(summary="nothing to change", data=data)
    fields = sorted((*change.values, *(("secrets",) if facts.secrets_changed else ())))
    after = dict(change.values)
    if facts.secrets_changed:
        after["secrets_changed"] = list(facts.secrets_changed)
    summary = f"changed {', '.join(fields)}"
    return Done(summary=summary, before=change.before, after=after, data=data)


class RemoveFenceDevice(Removal):
    """Take a power controller away from its host."""

    fence_device_id: UUID


class RemoveFenceDeviceAction(Action[RemoveFenceDevice, Row]):
    """`fence.remove`: allowed for a host's last one, too, with a warning in the summary.

    Refused where what is left would take too long. A device that is broken has to go, so what its
    host cannot prove any more without it is no reason to refuse, but is said.
    """

    params = RemoveFenceDevice
    kind = "fence.remove"
    permission = Permission.FENCE_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: RemoveFenceDevice, problems: Problems) -> Plan[Row]:
        """Check the version; its host must not be under work."""
        row = await existing(tx, "fence_device", params.fence_device_id)
        check_version(params.expected_version, "fence_device", row, problems)
        host = await existing(tx, "host", row["host_id"])
        problems.extend(await too_slow_without(tx, host, row))
        device, on_host = exclusive("fence_device", row["id"]), shared("host", host["id"])
        return Plan(
            target=target_of("fence_device", row, host["cluster_id"]),
            facts=row,
            locks=(device, on_host, shared("cluster", host["cluster_id"])),
            steps=("delete the fence device",),
        )

    async def execute(self, tx: Tx, params: RemoveFenceDevice, plan: Plan[Row]) -> Done:
        """Delete it."""
        row = plan.facts
        before_it = await devices_of(tx, await existing(tx, "host", row["host_id"]))
        deleted = await edits.delete(tx.connection, "fence_device", row["id"], row["version"])
        confirm(tx, "fence_device", row, written=deleted)
        host = await existing(tx, "host", row["host_id"])
        summary = "; ".join(("removed", *await _lost(tx, host, before_it)))
        before = {name: row[name] for name in (*PLAIN, "options")}
        return Done(summary=summary, before=before, data={"host": host["name"]})


async def _lost(tx: Tx, host: Row, before: tuple[FenceDevice, ...]) -> list[str]:
    """Warnings of what a host's devices cannot prove any more, and what that means for its VMs."""
    policy = policy_of(await existing(tx, "cluster", host["cluster_id"]))
    proofs, left = policy.timing.proofs_required, await devices_of(tx, host)
    if not provable(left, proofs):
        return await _unprovable(tx, host, len(left), proofs)
    if survives_power_loss(before, proofs) and not survives_power_loss(left, proofs):
        return [
            f"warning: {host['name']} now blocks on power loss: what is left of its devices shares"
            " its supply"
        ]
    return []


async def _unprovable(tx: Tx, host: Row, left: int, proofs: int) -> list[str]:
    few = f"{left} left of the {proofs} that its profile wants" if left else "none left"
    warning = f"warning: {host['name']} has {few}, so its death cannot be proven"
    count = await edits.protected_in(tx.connection, host["cluster_id"])
    if count == 0:
        return [warning]
    return [
        f"{warning}: should it fail, those of the cluster's {count} protected VMs that run there "
        "wait for a person"
    ]


async def _duplicate(
    tx: Tx, agent: str, options: Mapping[str, str], own: UUID | None = None
) -> list[Refused]:
    """One controller under two names would prove a death twice, or that of two hosts."""
    wanted = controller_of(agent, options)
    if wanted is None:
        return []
    return [
        Conflict(
            "FENCE_DEVICE_DUPLICATE",
            f"{row['name']} is the same power controller: {agent} with the same options",
            next_step=f"use {row['name']}, or correct the options",
            device=row["name"],
        )
        for row in await inventory.listing(tx.connection, "fence_device")
        if row["id"] != own and controller_of(row["agent"], row["options"]) == wanted
    ]


async def _known(agents: AgentCheck, agent: str) -> None:
    with contextlib.suppress(Refused):  # the plan is refused for it, with everything else
        await agents.check(agent, {}, {})


def merged(known: Mapping[str, T], said: Mapping[str, T | None]) -> dict[str, T]:
    """What is known with what is said on top of it; None takes an entry away (RFC 7396)."""
    both = {**known, **said}
    return {key: value for key, value in both.items() if value is not None}


def revealed(secrets: dict[str, SecretStr]) -> dict[str, str]:
    """Secrets as the agent and the sealer need them."""
    return {key: value.get_secret_value() for key, value in secrets.items()}

"""Power controllers of hosts: adding them."""

from typing import Protocol
from uuid import UUID

from pydantic import Field, SecretStr

from domain.context import PriorityClass
from domain.errors import Refused
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.named import NAME, taken
from store import inventory
from store.ids import new_id
from store.rows import Row


class SecretSealer(Protocol):
    """Encrypts what must not be readable in the database."""

    def seal(self, secrets: dict[str, str]) -> bytes:
        """Named secrets as one opaque value."""
        ...


class AgentCheck(Protocol):
    """Knows the fence agents of this machine."""

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Invalid when the agent does not exist or an option or secret does not fit it."""
        ...


class AddFenceDevice(Params):
    """Give a host a power controller."""

    host_id: UUID
    name: str = Field(pattern=NAME)
    agent: str = Field(pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str] = Field(default_factory=dict, max_length=64)
    secrets: dict[str, SecretStr] = Field(default_factory=dict, max_length=8)
    deadline_s: float = Field(default=10.0, gt=0, le=300)


class AddFenceDeviceAction(Action[AddFenceDevice, Row]):
    """`fence.add`: checked against the agent's own metadata, secrets sealed."""

    params = AddFenceDevice
    kind = "fence.add"
    permission = Permission.FENCE_CONFIGURE
    priority = PriorityClass.INVENTORY

    def __init__(self, sealer: SecretSealer, agents: AgentCheck) -> None:
        self._sealer = sealer
        self._agents = agents

    async def plan(self, tx: Tx, params: AddFenceDevice, problems: Problems) -> Plan[Row]:
        """Check the name, and the options against the agent's metadata."""
        host = await existing(tx, "host", params.host_id)
        problems.extend(await taken(tx, "fence_device", params.name))
        try:
            await self._agents.check(params.agent, params.options, revealed(params.secrets))
        except Refused as problem:
            problems.append(problem)
        target = Target("fence_device", new_id(), params.name, host["cluster_id"])
        return Plan(target=target, facts=host, steps=("write the fence device",))

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


def revealed(secrets: dict[str, SecretStr]) -> dict[str, str]:
    """Secrets as the agent and the sealer need them."""
    return {key: value.get_secret_value() for key, value in secrets.items()}

"""Adding clusters, hosts, fence devices and VMs."""

from typing import Protocol
from uuid import UUID

from pydantic import Field, SecretStr

from domain.errors import Conflict
from domain.inventory import MAX_PRIORITY, Boot, Disk, HostState, VirtType
from domain.orders import ActivateHostOrder, HostRef
from domain.profiles import Profile, policy_for
from engine.actions.base import Accepted, Action, Params, Tx, existing
from store import inventory
from store.ids import new_id

NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""Names are DNS labels and dots, so that they can stand in domain names, files and URLs."""

SCHEMES = r"^(qemu\+(tcp|tls|ssh)|test(\+tcp)?)://[^\s]{0,480}$"


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


async def _refuse_taken(tx: Tx, entity: str, name: str) -> None:
    if await inventory.find(tx.connection, entity, name) is not None:
        word = entity.replace("_", " ")
        raise Conflict(
            "NAME_TAKEN",
            f"there is a {word} named {name} already",
            next_step="choose another name",
            name=name,
        )


class CreateCluster(Params):
    """Add a cluster; its profile sets the timing of everything in it."""

    name: str = Field(pattern=NAME)
    profile: Profile = Profile.BALANCED
    virt_type: VirtType = VirtType.KVM


class CreateClusterAction(Action[CreateCluster]):
    """`cluster.create`: done within the transaction."""

    params = CreateCluster
    kind = "cluster.create"

    async def accept(self, tx: Tx, params: CreateCluster) -> Accepted:
        """Write the cluster."""
        await _refuse_taken(tx, "cluster", params.name)
        row = params.model_dump(mode="json") | {"id": new_id(), "created_at": tx.now}
        await inventory.insert(tx.connection, "cluster", row)
        return Accepted("cluster", row["id"], params.name, row["id"], summary="created")


class AddHost(Params):
    """Add a host and bring it into service."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    uri: str = Field(pattern=SCHEMES)
    own_host: bool = False  # the engine itself runs there: it is never fenced


class AddHostAction(Action[AddHost]):
    """`host.add`: written at once, then activated."""

    params = AddHost
    kind = "host.add"
    workflow = "ActivateHost"

    async def accept(self, tx: Tx, params: AddHost) -> Accepted:
        """Write the host and order its activation."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        await _refuse_taken(tx, "host", params.name)
        if await inventory.listing(tx.connection, "host", uri=params.uri):
            raise Conflict("URI_TAKEN", f"there is a host at {params.uri} already", uri=params.uri)
        host_id = new_id()
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
            context=tx.context,
            policy=policy_for(Profile(cluster["profile"]), power_on_answer_s=30),
            host=HostRef(host_id=host_id, name=params.name, uri=params.uri, epoch=0),
            power_on=False,
        )
        locks = (("host", host_id),)
        return Accepted("host", host_id, params.name, params.cluster_id, locks, order)


class AddFenceDevice(Params):
    """Give a host a power controller."""

    host_id: UUID
    name: str = Field(pattern=NAME)
    agent: str = Field(pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str] = Field(default_factory=dict, max_length=64)
    secrets: dict[str, SecretStr] = Field(default_factory=dict, max_length=8)
    deadline_s: float = Field(default=10.0, gt=0, le=300)


class AddFenceDeviceAction(Action[AddFenceDevice]):
    """`fence.add`: checked against the agent's own metadata, secrets sealed."""

    params = AddFenceDevice
    kind = "fence.add"

    def __init__(self, sealer: SecretSealer, agents: AgentCheck) -> None:
        self._sealer = sealer
        self._agents = agents

    async def accept(self, tx: Tx, params: AddFenceDevice) -> Accepted:
        """Write the device."""
        host = await existing(tx, "host", params.host_id)
        await _refuse_taken(tx, "fence_device", params.name)
        secrets = {key: value.get_secret_value() for key, value in params.secrets.items()}
        await self._agents.check(params.agent, params.options, secrets)
        device_id = new_id()
        row = params.model_dump(exclude={"secrets"}) | {
            "id": device_id,
            "secrets": self._sealer.seal(secrets),
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "fence_device", row)
        data = {"host": host["name"], "agent": params.agent}
        return Accepted(
            "fence_device", device_id, params.name, host["cluster_id"], summary="added", data=data
        )


class CreateVm(Params):
    """Add a VM; it is not started."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    memory_mib: int = Field(ge=16, le=16 * 1024 * 1024)
    vcpus: int = Field(default=1, ge=1, le=512)
    protected: bool = False
    priority: int = Field(default=50, ge=0, le=MAX_PRIORITY)
    depends_on: tuple[UUID, ...] = Field(default=(), max_length=64)
    disks: tuple[Disk, ...] = Field(default=(), max_length=32)
    boot: Boot | None = None


class CreateVmAction(Action[CreateVm]):
    """`vm.create`: done within the transaction. A new VM can close no dependency cycle."""

    params = CreateVm
    kind = "vm.create"

    async def accept(self, tx: Tx, params: CreateVm) -> Accepted:
        """Write the VM and what it depends on."""
        await existing(tx, "cluster", params.cluster_id)
        await _refuse_taken(tx, "vm", params.name)
        for other in params.depends_on:
            await existing(tx, "vm", other)
        vm_id = new_id()
        plain = params.model_dump(mode="json", include={"disks", "boot"})
        row = params.model_dump(exclude={"disks", "boot", "depends_on"}) | {
            "id": vm_id,
            "spec": plain,
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "vm", row)
        await inventory.add_dependencies(tx.connection, vm_id, tuple(set(params.depends_on)))
        return Accepted("vm", vm_id, params.name, params.cluster_id, summary="created")


class ArmCluster(Params):
    """Allow (arm) or stop (disarm) every automatic action in a cluster."""

    cluster_id: UUID
    armed: bool


class ArmClusterAction(Action[ArmCluster]):
    """`cluster.arm`: one row, at once, also while everything else is stuck."""

    params = ArmCluster
    kind = "cluster.arm"

    async def accept(self, tx: Tx, params: ArmCluster) -> Accepted:
        """Write the switch."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        await inventory.arm_cluster(tx.connection, params.cluster_id, armed=params.armed)
        word = "armed" if params.armed else "disarmed"
        data = {"armed": params.armed}
        return Accepted(
            "cluster", cluster["id"], cluster["name"], cluster["id"], summary=word, data=data
        )

"""The demo's little company, built through the REST API like anybody would."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx2

from cli.demo_grounds import Ground, Machine
from domain.errors import EngineError
from domain.operations import OperationState

OPERATION_LIMIT_S = 120.0


@dataclass(frozen=True)
class DemoVm:
    """One VM of the demo: where it starts and how much it matters."""

    name: str
    host: str
    protected: bool = True
    priority: int = 50
    depends_on: tuple[str, ...] = ()


VMS = (
    DemoVm("db", "h1", priority=90),
    DemoVm("mail", "h1", priority=80),
    DemoVm("web", "h1", depends_on=("db",)),
    DemoVm("batch", "h1", protected=False),
    DemoVm("dns", "h2"),
    DemoVm("logs", "h3"),
)
"""Four of the six stand on h1: two protected with high priority, one that depends on another, one
unprotected."""

MEMORY_MIB = 96


class DemoFailed(EngineError):
    """The demo did not go as it must; the detail says where."""


@dataclass
class World:
    """The API and what was built behind it."""

    client: httpx2.AsyncClient
    hosts: dict[str, str] = field(default_factory=dict)
    vms: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **query: Any) -> Any:
        """One GET; the decoded body."""
        return _body(await self.client.get(f"/api/v1{path}", params=query))

    async def act(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One POST; the operation once it has ended well."""
        answer = await self.client.post(f"/api/v1{path}", json=body or {})
        return await self.ended(_body(answer)["id"])

    async def ended(self, operation_id: str) -> dict[str, Any]:
        """Wait for an operation; DemoFailed unless it succeeded."""
        end = asyncio.get_running_loop().time() + OPERATION_LIMIT_S
        while True:
            operation: dict[str, Any] = await self.get(f"/operations/{operation_id}")
            if operation["done"]:
                break
            if asyncio.get_running_loop().time() > end:
                what = f"{operation['kind']} {operation['target_name']}"
                raise DemoFailed("DEMO_STUCK", f"{what} did not end in {OPERATION_LIMIT_S:.0f} s")
            await asyncio.sleep(0.1)
        if operation["state"] != OperationState.SUCCEEDED:
            problem = operation["problem"] or {"detail": operation["state"]}
            what = f"{operation['kind']} {operation['target_name']}"
            raise DemoFailed("DEMO_STEP_FAILED", f"{what}: {problem['detail']}")
        return operation

    async def build(self, ground: Ground) -> None:
        """Cluster, hosts, power controllers and VMs."""
        cluster = {"name": "demo", "virt_type": ground.virt_type, "profile": "balanced"}
        cluster_id = (await self.act("/clusters", cluster))["target_id"]
        await asyncio.gather(*(self._add_host(cluster_id, host) for host in ground.machines()))
        for vm in VMS:
            body = {
                "cluster_id": cluster_id,
                "name": vm.name,
                "memory_mib": MEMORY_MIB,
                "protected": vm.protected,
                "priority": vm.priority,
                "depends_on": [self.vms[other] for other in vm.depends_on],
                **ground.hardware(vm.name),
            }
            self.vms[vm.name] = (await self.act("/vms", body))["target_id"]

    async def _add_host(self, cluster_id: str, host: Machine) -> None:
        body = {"cluster_id": cluster_id, "name": host.name, "uri": host.uri}
        self.hosts[host.name] = (await self.act("/hosts", body))["target_id"]
        await self.act("/fence-devices", {"host_id": self.hosts[host.name], **host.device})

    async def start_all(self) -> None:
        """Start every VM where the demo wants it, those that others depend on first."""
        for vm in VMS:
            body = {"host_id": self.hosts[vm.host]}
            await self.act(f"/vms/{self.vms[vm.name]}/actions/start", body)


def _body(answer: httpx2.Response) -> Any:
    body = answer.json()
    if answer.status_code >= 400:
        raise DemoFailed(body["code"], body["detail"], next_step=body["next_step"])
    return body

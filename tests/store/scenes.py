"""One of every object in any state, and one sensible request for every kind of action."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from domain.errors import EngineError
from domain.inventory import VmState
from domain.matrix import REBOOTED
from engine.actions.base import Action, Params
from engine.actions.hosts import ActivateHost
from engine.registry import all_actions
from store import incidents, inventory, migrating, runs, soft_steps
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Agents, Engine, Sealer

ACTIONS: dict[str, Action[Any, Any]] = {
    action.kind: action for action in all_actions(Sealer(), Agents())
}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
NOT_IN_TABLES = {"batch"}
"""Kinds that no caller names: `run_multiple_actions` makes them."""


class Scene:
    """One of each object, the entity of the case in its state."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.ids: dict[str, UUID] = {}

    async def build(self, entity: str = "", state: str = "") -> "Scene":
        """Write them."""
        world = self.world
        self.ids["cluster"] = world.cluster_id
        self.ids["host"] = await world.host("h1")
        self.ids["fence"] = await world.device(self.ids["host"])
        self.ids["vm"] = await world.vm("db")
        row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "created_at": world.now}
        await world.do(inventory.insert, "network", row | {"name": "lan", "bridge": None})
        group = row | {"id": new_id(), "name": "apart", "together": False, "hard": False}
        await world.do(inventory.insert, "affinity_group", group)
        self.ids |= {"network": row["id"], "affinity": group["id"]}
        self.ids["operation"] = await world.operation(self.ids["vm"])
        if entity:
            await STATES[entity](self, state)
        return self

    async def prepare(self, rule: str, state: str) -> "Scene":
        """Add what one kind of action needs beside its entity's state in order to succeed."""
        prepared = NEEDS.get(rule) or NEEDS.get(f"{rule} {state}")
        if prepared is not None:
            await prepared(self)
        return self

    async def empty_cluster(self) -> None:
        """Another cluster, which nothing belongs to."""
        world = self.world
        row: Row = {"id": new_id(), "name": "empty", "profile": "balanced", "virt_type": "qemu"}
        await world.do(inventory.insert, "cluster", row | {"created_at": world.now})
        self.ids["cluster"] = row["id"]

    async def open_incident(self) -> None:
        """The host's failure is being judged."""
        self.ids["incident"] = await self.world.incident(self.ids["host"])

    async def noted_run(self) -> None:
        """What runs of the VM is known by its id."""
        for run in await self.engine.rows("vm_run"):
            self.ids["run"] = run["id"]

    async def second_host(self) -> None:
        """Another host in service."""
        self.ids["other"] = await self.world.host("h2")

    async def ssh_access(self) -> None:
        """The host may be reached over SSH."""
        row: Row = {"host_id": self.ids["host"], "user": "holdfast", "port": 22}
        row |= {"host_key": HOST_KEY, "secrets": b"", "created_at": self.world.now}
        await self.world.do(soft_steps.give_access, row)

    async def judged_incident(self) -> None:
        """The host's failure is being judged by a recovery that is under way."""
        await self.open_incident()
        recovery = await self.world.operation(self.ids["host"], kind="host.recover")
        await self.world.put("incident", self.ids["incident"], operation_id=recovery)

    async def proven_and_unclaimed(self) -> None:
        """The host is proven dead, and its recovery ended before it took the VM that ran there."""
        world, host = self.world, self.ids["host"]
        await self.set_host("up")
        await world.running(self.ids["vm"], host)
        await world.certificate(host)
        (incident,) = await self.engine.rows("incident")
        await world.do(incidents.close, incident["id"], "incomplete", world.now)
        await self.set_host("down")

    async def set_host(self, state: str) -> None:
        """The host in a state."""
        await self.world.put("host", self.ids["host"], state=state)

    async def set_operation(self, state: str) -> None:
        """The operation in a state, as its own last change left it."""
        claimed = {"run_id": "r1"} if state != "pending" else {}
        params = {"vm_id": str(self.ids["vm"])}
        values = {"state": state, "params": params} | claimed
        await self.world.put("operation", self.ids["operation"], **values)

    async def set_vm(self, state: str) -> None:
        """The VM in a state, by its run and its host."""
        vm, host = self.ids["vm"], self.ids["host"]
        if state == VmState.POWERING_UP:
            run = await self.world.placed(vm, host)
            assert await self.world.do(runs.begin_start, run["id"], run["operation_id"])
        elif state != VmState.DOWN:
            run = await self.world.running(vm, host)
            if state == VmState.MIGRATING:
                target = await self.world.host("h2")
                mover = await self.world.operation(vm, kind="vm.migrate")
                assert await self.world.do(migrating.begin, run["id"], target, 1, mover)
            if state == VmState.POWERING_DOWN:
                await self.world.stopping(run["id"])
            if state == VmState.UNKNOWN:
                await self.set_host("non_responsive")


STATES: dict[str, Callable[[Scene, str], Awaitable[None]]] = {
    "host": Scene.set_host,
    "vm": Scene.set_vm,
    "operation": Scene.set_operation,
}


NEEDS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "host.confirm_dead": Scene.judged_incident,
    "host.approve_fence": Scene.judged_incident,
    "host.withdraw_approval": Scene.judged_incident,
    "cluster.remove": Scene.empty_cluster,
    "vm.recover": Scene.noted_run,
    "vm.end_copy": Scene.second_host,
    "vm.adopt_copy": Scene.second_host,
    "host.restart_libvirtd": Scene.ssh_access,
    "host.fence": Scene.open_incident,
    "host.recover down": Scene.proven_and_unclaimed,
}


def wishes(ids: dict[str, UUID]) -> dict[str, dict[str, Any]]:
    """One sensible request for every kind of action."""
    cluster, host, vm = {"cluster_id": ids["cluster"]}, {"host_id": ids["host"]}, ids["vm"]
    fence, network = {"fence_device_id": ids["fence"]}, {"network_id": ids["network"]}
    group, operation = {"affinity_group_id": ids["affinity"]}, {"operation_id": ids["operation"]}
    return {
        "cluster.create": {"name": "c2"},
        "cluster.edit": cluster | {"profile": "fast"},
        "cluster.remove": cluster,
        "cluster.arm": cluster | {"armed": False},
        "network.create": cluster | {"name": "wan", "bridge": "br1"},
        "network.edit": network | {"name": "wan"},
        "network.remove": network,
        "host.add": cluster | {"name": "h2", "uri": "qemu+tcp://h2/system"},
        "host.edit": host | {"name": "h9"},
        "host.remove": host,
        "host.activate": host,
        "host.maintain": host,
        "host.shutdown": host | {"vms": "failover"},
        "host.reboot": host | {"vms": "freeze"},
        "host.recover": host | {"epoch": 1, "why": "silent", "reported_by": "m1"},
        "host.check_fencing": host,
        "host.rehearse_fencing": host,
        "host.restart_libvirtd": host,
        "host.confirm_dead": host | {"reason": "I stood before it"},
        "host.approve_fence": host | {"reason": "the rack burns"},
        "host.withdraw_approval": host,
        "host.fence": host | {"incident_id": ids.get("incident", new_id())},
        "fence.add": host
        | {"name": "b2", "agent": "fence_ipmilan", "secrets": {"password": SecretStr("x")}},
        "fence.edit": fence | {"name": "b9"},
        "fence.remove": fence,
        "vm.create": cluster | {"name": "app", "memory_mib": 64},
        "vm.recover": {"vm_id": vm, "run_id": ids.get("run", new_id())}
        | {"why": "gone", "reported_by": "m1"},
        "vm.edit": {"vm_id": vm, "vcpus": 2},
        **{key: {"vm_id": vm} for key in ("vm.delete", "vm.start", "vm.stop", "vm.migrate")},
        "vm.end_copy": {"vm_id": vm, "host_id": ids.get("other", ids["host"]), "last_copy": True},
        "vm.adopt_copy": {"vm_id": vm, "host_id": ids.get("other", ids["host"])},
        "vm.import": host | {"guest_id": new_id(), "name": "old"},
        "affinity.create": cluster | {"name": "near", "together": True, "vm_ids": (vm,)},
        "affinity.edit": group | {"hard": True},
        "affinity.delete": group,
        "operation.cancel": operation,
        "operation.retry": operation,
        "operation.pause": operation,
        "operation.resume": operation,
        "operation.prioritise": operation | {"priority": 4},
    }


def params_of(scene: Scene, kind: str) -> Params:
    """The sensible request of a kind, or of what the matrices know one by."""
    if kind == REBOOTED:
        return ActivateHost(host_id=scene.ids["host"], rebooted_epoch=1)
    return ACTIONS[kind].params.model_validate(wishes(scene.ids)[kind])


async def refusal_of(asked: Awaitable[Any]) -> EngineError | None:
    """Why something was refused, or None; any other error is a defect and is raised."""
    try:
        await asked
    except EngineError as error:
        return error
    return None

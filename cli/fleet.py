"""What `holdfast up --fleet` does around the fleet's process: checks before, the inventory after.

The inventory is written through the REST API as anybody would write it, in batches. It is completed
by name, so an interrupted start goes on where it was; once it was complete, the fleet remembers
that, and what a person changes afterwards stays as it is.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from api.auth import token_file
from domain.errors import Conflict, EngineError, NoAnswer, Unavailable
from domain.operations import OperationState
from simulator.fleet.drivers import AGENT, FarControl
from simulator.fleet.place import socket_of
from simulator.fleet.saved import read_file
from simulator.fleet.server import made
from simulator.fleet.spec import VM_MIB, FleetSpec, parse_fleet
from store import inventory
from store.database import Database
from worker.settings import Settings

CLUSTER = "fleet"
BATCH_MAX = 1000
PRIORITIES = (90, 70, 50, 30, 10)
STARTS_AT_ONCE = 50
"""VMs that are started side by side. Higher: the machine is too busy to poll in time. Lower: a
large fleet takes longer to stand."""

ASK_EVERY_S = 0.25
SAY_EVERY_S = 2.0
STUCK_S = 120.0
"""How long nothing at all may happen. Higher: a defect is told later. Lower: a busy machine is
taken for one."""

Json = dict[str, Any]
Say = Callable[[str], None]


def check_folder(settings: Settings) -> None:
    """Refuse a folder whose fleet is another one, or that has one and shall be used without.

    Invalid for a fleet that cannot be read.
    """
    found = read_file(settings.var)
    if not settings.fleet:
        if found is not None:
            raise Conflict(
                "FLEET_FOLDER",
                f"{settings.var} is the folder of the fleet {found.spec}, which has no real hosts",
                next_step=f"add --fleet {found.spec}, or name another folder in HOLDFAST_VAR",
            )
        return
    spec = parse_fleet(settings.fleet)
    socket_of(settings.var)
    if found is not None and found.spec != spec:
        raise Conflict(
            "FLEET_DIFFERS",
            f"the fleet of {settings.var} is {found.spec}, not {spec}",
            next_step=f"use --fleet {found.spec}, or name another folder in HOLDFAST_VAR",
        )


async def refuse_real_hosts(settings: Settings) -> None:
    """Conflict when the database has hosts that no fleet has: they would all fall silent."""
    if not settings.fleet:
        return
    ours = {host.uri for host in made(parse_fleet(settings.fleet), None).hosts.values()}
    database = Database(settings.database)
    try:
        rows = await database.read(lambda c: inventory.listing(c, "host"))
    finally:
        await database.close()
    if foreign := [row["name"] for row in rows if row["uri"] not in ours]:
        raise Conflict(
            "FLEET_BESIDE_HOSTS",
            f"{len(foreign)} hosts of this engine belong to no fleet: {', '.join(foreign[:5])}",
            next_step="name a new folder in HOLDFAST_VAR, and no HOLDFAST_DATABASE_URL",
        )


async def until_it_answers(var: Path, limit_s: float) -> None:
    """Wait for the fleet's process; Unavailable when it does not come."""
    control, end = FarControl(socket_of(var)), asyncio.get_running_loop().time() + limit_s
    while asyncio.get_running_loop().time() < end:
        with suppress(NoAnswer):
            await control.is_built()
            return
        await asyncio.sleep(0.05)
    raise Unavailable(
        "FLEET_DID_NOT_START",
        f"the fleet did not answer within {limit_s:.0f} s",
        next_step=f"see {var / 'log' / 'fleet.log'}",
    )


async def build(url: str, settings: Settings, say: Say) -> None:
    """Bring the fleet into service unless that was done before."""
    spec, control = parse_fleet(settings.fleet), FarControl(socket_of(settings.var))
    if await control.is_built():
        say(f"fleet        {spec}, as it was left")
        return
    headers = {"Authorization": f"Bearer {token_file(settings.var).read_text().strip()}"}
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            await _Builder(client, say).build(spec)
    except httpx2.HTTPError as error:
        raise Unavailable(
            "FLEET_NOT_BUILT",
            f"the API does not answer: {error!r}",
            next_step="end this engine and start it again: it goes on with what is missing",
        ) from None
    await control.set_built()


class _Builder:
    """Writes an inventory through the API."""

    def __init__(self, client: httpx2.AsyncClient, say: Say) -> None:
        self._client = client
        self._say = say
        self._clock = asyncio.get_running_loop().time

    async def build(self, spec: FleetSpec) -> None:
        """What is missing of it, then a start of every VM that is down."""
        began = self._clock()
        cluster = await self._cluster(spec)
        await self._add_hosts(spec, cluster)
        await self._add_vms(spec, cluster)
        self._say(f"fleet        {spec.hosts} hosts, {spec.vms} VMs known to the engine")
        down = [vm["id"] for vm in await self._all("/vms") if vm["state"] == "down"]
        await self._batch("VMs started", "vm.start", [{"vm_id": vm_id} for vm_id in down])
        took_s = self._clock() - began
        self._say(f"fleet        {spec.vms} VMs run on {spec.hosts} hosts after {took_s:.1f} s")

    async def _cluster(self, spec: FleetSpec) -> str:
        for known in await self._all("/clusters"):
            if known["name"] == CLUSTER:
                return str(known["id"])
        body = {"name": CLUSTER, "profile": spec.profile.value}
        operation = _body(await self._client.post("/api/v1/clusters", json=body))
        return str(operation["target_id"])

    async def _add_hosts(self, spec: FleetSpec, cluster: str) -> None:
        known = await self._names("/hosts")
        missing = [
            {"cluster_id": cluster, "name": name, "uri": host.uri}
            for name, host in made(spec, None).hosts.items()
            if name not in known
        ]
        await self._batch("hosts in service", "host.add", missing)
        devices = await self._names("/fence-devices")
        hosts = await self._names("/hosts")
        agents = [
            {
                "host_id": hosts[name],
                "name": f"bmc-{name}",
                "agent": AGENT,
                "shares_power": False,
            }
            for name in spec.host_names
            if f"bmc-{name}" not in devices
        ]
        await self._batch("power controllers added", "fence.add", agents)

    async def _add_vms(self, spec: FleetSpec, cluster: str) -> None:
        known = await self._names("/vms")
        missing = [
            {
                "cluster_id": cluster,
                "name": f"vm-{number}",
                "memory_mib": VM_MIB,
                "protected": True,
                "priority": PRIORITIES[number % len(PRIORITIES)],
            }
            for number in range(1, spec.vms + 1)
            if f"vm-{number}" not in known
        ]
        await self._batch("VMs added", "vm.create", missing)

    async def _batch(self, what: str, kind: str, params: list[Json]) -> None:
        for chunk in _chunks(params):
            actions = [{"kind": kind, "params": one} for one in chunk]
            body = {"actions": actions, "at_once": min(len(actions), STARTS_AT_ONCE)}
            operation = _body(await self._client.post("/api/v1/batches", json=body))
            await self._ended(operation["id"], what)

    async def _ended(self, operation_id: str, what: str) -> None:
        seen: Any = None
        said = ""
        moved_at = said_at = self._clock()
        while True:
            operation = await self._get(f"/operations/{operation_id}")
            if operation["done"]:
                break
            states, now = operation["children_states"], self._clock()
            if states != seen:
                seen, moved_at = states, now
            if now - moved_at > STUCK_S:
                raise Unavailable("FLEET_STUCK", f"{what}: nothing happened for {STUCK_S:.0f} s")
            told = f"{operation['progress_done'] or 0} of {operation['progress_total']} {what}"
            if told != said and now - said_at >= SAY_EVERY_S:
                said, said_at = told, now
                self._say(f"fleet        {told}")
            await asyncio.sleep(ASK_EVERY_S)
        if operation["state"] != OperationState.SUCCEEDED:
            raise _failed(operation, what)

    async def _names(self, path: str) -> dict[str, str]:
        return {row["name"]: row["id"] for row in await self._all(path)}

    async def _all(self, path: str) -> list[Json]:
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = await self._get(path, limit=500, **({"cursor": cursor} if cursor else {}))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    async def _get(self, path: str, **query: Any) -> Any:
        return _body(await self._client.get(f"/api/v1{path}", params=query))


def _chunks(params: list[Json]) -> Iterable[list[Json]]:
    return (params[at : at + BATCH_MAX] for at in range(0, len(params), BATCH_MAX))


def _failed(operation: Json, what: str) -> EngineError:
    problem = operation["problem"] or {"detail": operation["summary"] or operation["state"]}
    children = [child["problem"] for child in operation["children"] if child["problem"]]
    detail = children[0]["detail"] if children else problem["detail"]
    return Unavailable(
        "FLEET_NOT_BUILT",
        f"not all {what}: {detail}",
        next_step=f"holdfast op show {operation['id']}; the next start adds what is missing",
    )


def _body(answer: httpx2.Response) -> Any:
    body = answer.json()
    if answer.status_code >= 400:
        raise Conflict(body["code"], body["detail"], next_step=body["next_step"])
    return body

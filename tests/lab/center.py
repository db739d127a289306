"""A real engine over a lab: its processes, its API, and the waits that tests of it need.

The engine runs in a thread of its own, because its children are tied to the thread that started
them and a test may block. Waits are bounded and generous; a wait that fails says what it saw last.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import libvirt

from api.auth import token_file
from cli.up import Command, Engine, process_command, running_engine
from lab import processes
from lab.bmc_control import BmcMode
from lab.inventory import HostInventory
from lab.lab import Lab
from lab.sampler import Samples
from worker.settings import Settings

Json = dict[str, Any]

ENGINE_START_S = 120.0
PATIENCE_S = 90.0
"""One wait. Everything here takes seconds; a busy machine may take many times as long."""

DEVICE_DEADLINE_S = 2.5
"""One call of a fence agent. Higher: tests with silent controllers take longer."""

MEMORY_MIB = 96
DISK_BYTES = 4 * 1024 * 1024


def until(holds: Callable[[], object], what: str, limit_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; NoAnswer names it when it did not within the limit."""
    processes.until(lambda: bool(holds()), limit_s, what, poll_s=0.05)


@contextmanager
def domain_of(center: "Center", vm: "Vm", host: str) -> Iterator[libvirt.virDomain]:
    """What a host's libvirt knows of a VM; libvirtError when it knows none."""
    uri = next(each.uri for each in center.lab.inventory().hosts if each.name == host)
    connection = libvirt.open(uri)
    try:
        yield connection.lookupByUUIDString(vm.id)
    finally:
        connection.close()


class EngineThread:
    """An engine in a thread of its own, from entry to exit."""

    def __init__(
        self, var: Path, command: Command = process_command, database_url: str = ""
    ) -> None:
        self._settings = Settings(var=var, api_port=0, database_url=database_url)
        self._command = command
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._engine: Engine | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Engine:
        self._thread.start()
        self._ready.wait(ENGINE_START_S)
        if self._engine is None:
            raise RuntimeError("the engine did not start") from self._failure
        return self._engine

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(ENGINE_START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running_engine(self._settings, lambda _line: None, self._command) as engine:
            self._engine = engine
            self._ready.set()
            await self._stop.wait()


@dataclass(frozen=True)
class Vm:
    """One VM of a test."""

    id: str
    name: str


@dataclass
class Center:
    """A lab, the engine that manages it, and what was built through its API."""

    lab: Lab
    engine: Engine
    client: httpx2.Client
    cluster_id: str = ""
    hosts: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- requests ------------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        """One GET that must succeed; the decoded body."""
        answer = self.client.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Json | None = None) -> Json:
        """One POST that must be accepted; the operation as it stands then."""
        answer = self.client.post(f"/api/v1{path}", json=body or {})
        assert answer.status_code == 202, answer.text
        operation: Json = answer.json()
        return operation

    def refused(self, path: str, body: Json | None = None) -> tuple[int, str]:
        """One POST that must be refused; status and code."""
        answer = self.client.post(f"/api/v1{path}", json=body or {})
        assert answer.status_code >= 400, answer.text
        problem = answer.json()
        assert problem["detail"], "a problem says what is wrong"
        return answer.status_code, problem["code"]

    def ended(self, operation_id: str) -> Json:
        """An operation once it has ended, however."""
        found: Json = {}

        def done() -> bool:
            nonlocal found
            found = self.get(f"/operations/{operation_id}")
            return bool(found["done"])

        until(done, f"operation {operation_id} ends")
        return found

    def act(self, path: str, body: Json | None = None) -> Json:
        """One POST whose operation must succeed."""
        operation = self.ended(self.post(path, body)["id"])
        assert operation["state"] == "succeeded", operation
        return operation

    # -- what is there -------------------------------------------------------------------------

    def build(self, profile: str) -> None:
        """Cluster, hosts and their power controllers."""
        body = {"name": f"c-{profile}", "virt_type": "qemu", "profile": profile}
        self.cluster_id = self.act("/clusters", body)["target_id"]
        entries = self.lab.inventory().hosts
        added = [self._add_host(entry) for entry in entries]
        for entry, operation in zip(entries, added, strict=True):
            ended = self.ended(operation["id"])
            assert ended["state"] == "succeeded", ended
            self.add_device(entry.name, f"bmc-{entry.name}", entry.bmc.password)
        until(self._all_heard, "the monitor hears every host")

    def _add_host(self, entry: HostInventory) -> Json:
        body = {"cluster_id": self.cluster_id, "name": entry.name, "uri": entry.uri}
        operation = self.post("/hosts", body)
        self.hosts[entry.name] = operation["target_id"]
        return operation

    def add_device(self, host: str, name: str, password: str, **options: str) -> None:
        """Give a host a power controller, with whatever password and further options."""
        bmc = next(e.bmc for e in self.lab.inventory().hosts if e.name == host)
        body = {
            "host_id": self.hosts[host],
            "name": name,
            "agent": bmc.agent,
            "options": bmc.options | options,
            "secrets": {"password": password},
            "deadline_s": DEVICE_DEADLINE_S,
            "shares_power": False,
        }
        self.act("/fence-devices", body)

    def redfish_body(self, host: str, name: str, of: str = "", **options: str) -> Json:
        """The request for a Redfish controller, of the host itself unless said."""
        access = next(e.redfish for e in self.lab.inventory().hosts if e.name == (of or host))
        return {
            "host_id": self.hosts[host],
            "name": name,
            "agent": access.agent,
            "options": access.options | options,
            "secrets": {"password": access.password},
            "deadline_s": 2 * DEVICE_DEADLINE_S,  # Python, TLS and three requests: 0.6 s when idle
            "shares_power": False,
        }

    def add_redfish(self, host: str, name: str, of: str = "", **options: str) -> None:
        """Give a host a Redfish controller at level 1."""
        self.act("/fence-devices", self.redfish_body(host, name, of, **options))

    def remove_device(self, device: Json) -> None:
        """Take a power controller away from its host."""
        path = f"/api/v1/fence-devices/{device['id']}"
        answer = self.client.delete(path)
        assert answer.status_code in (200, 202), answer.text

    def _all_heard(self) -> bool:
        return all(self.host(name)["last_answer_at"] for name in self.hosts)

    def vm_body(self, name: str, **more: Any) -> Json:
        """The request for a VM whose only guard against a second copy is the engine."""
        inventory = self.lab.inventory()
        disk = Path(inventory.shared) / f"{name}.img"
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        return {
            "cluster_id": self.cluster_id,
            "name": name,
            "memory_mib": MEMORY_MIB,
            "protected": True,
            # QEMU takes no lock on a shareable disk.
            "disks": [{"path": str(disk), "shareable": True}],
            "boot": inventory.guest.model_dump(mode="json"),
        } | more

    def add_vm(self, word: str, **more: Any) -> Vm:
        """A VM that is down, under a name that no other test uses."""
        name = f"{word}-{next(self._numbers)}"
        return Vm(self.act("/vms", self.vm_body(name, **more))["target_id"], name)

    def running_vm(self, word: str, host: str, **more: Any) -> Vm:
        """A VM that runs on a host."""
        vm = self.add_vm(word, **more)
        self.start(vm, host)
        return vm

    def start(self, vm: Vm, host: str | None = None) -> Json:
        """Start a VM, on a host of our choice or of the engine's."""
        return self.act(
            f"/vms/{vm.id}/actions/start", {"host_id": self.hosts[host]} if host else {}
        )

    def vm(self, vm: Vm) -> Json:
        """How the engine sees a VM."""
        view: Json = self.get(f"/vms/{vm.id}")
        return view

    def host(self, name: str) -> Json:
        """How the engine sees a host."""
        view: Json = self.get(f"/hosts/{self.hosts[name]}")
        return view

    def events(self, kind: str, host: str) -> list[Json]:
        """Events of one type about a host, oldest first."""
        found: list[Json] = []
        cursor = 0
        while items := self.get("/events", after=cursor, limit=500)["items"]:
            cursor = items[-1]["seq"]
            found += [e for e in items if (e["type"], e["subject_id"]) == (kind, self.hosts[host])]
        return found

    # -- incidents -----------------------------------------------------------------------------

    def incidents(self, host: str) -> list[Json]:
        """Incidents of a host, newest first."""
        items = self.get("/incidents")["items"]
        return [item for item in items if item["host_id"] == self.hosts[host]]

    def new_incident(self, host: str, known: int) -> Json:
        """The incident that follows the first `known` ones of a host, once it is there."""
        until(lambda: len(self.incidents(host)) > known, f"an incident of {host} is opened")
        return self.incidents(host)[0]

    def closed(self, incident_id: str) -> Json:
        """An incident once it is closed and its operation has ended."""
        until(
            lambda: not self.get(f"/incidents/{incident_id}")["open"],
            f"incident {incident_id} is closed",
        )
        incident: Json = self.get(f"/incidents/{incident_id}")
        self.ended(incident["operation_id"])
        return incident

    def waiting(self, incident: Json) -> Json:
        """The recovery of an incident once it waits with a reason."""
        found: Json = {}

        def waits() -> bool:
            nonlocal found
            found = self.get(f"/operations/{incident['operation_id']}")
            return bool(found["state"] == "waiting")

        until(waits, "the recovery waits with a reason")
        return found

    # -- faults and the way back ---------------------------------------------------------------

    def recover_from(self, host: str, fault: Callable[[str], None]) -> Json:
        """Do a fault to a host and follow its incident to the end; the incident."""
        known = len(self.incidents(host))
        fault(host)
        return self.closed(self.new_incident(host, known)["id"])

    def activate(self, host: str) -> Json:
        """Bring a host back into service."""
        return self.act(f"/hosts/{self.hosts[host]}/actions/activate")

    def settle(self) -> None:
        """Everything honest, on, in service and empty of running VMs: how each test begins."""
        for host in self.hosts:
            self.lab.bmc(host, BmcMode.OK)
        self.lab.up()
        until(
            lambda: not any(item["open"] for item in self.get("/incidents")["items"]),
            "no incident is open",
        )
        for host in self.hosts:
            self.into_service(host)
        self._stop_all()

    def into_service(self, host: str) -> None:
        """Wait until a host is in service; one that was put out of it is activated."""
        until(lambda: self._in_service(host), f"{host} is in service")

    def _in_service(self, host: str) -> bool:
        state = self.host(host)["state"]
        if state in ("down", "non_operational"):
            self.client.post(f"/api/v1/hosts/{self.hosts[host]}/actions/activate", json={})
        return bool(state == "up")

    def _stop_all(self) -> None:
        running = [vm["id"] for vm in self.get("/vms")["items"] if vm["state"] != "down"]
        stops = [self.post(f"/vms/{vm}/actions/stop", {"force": True}) for vm in running]
        for stop in stops:
            self.ended(stop["id"])

    # -- proof ---------------------------------------------------------------------------------

    def assert_one_copy_each(self, samples: Samples, *vms: Vm) -> None:
        """Each VM runs exactly once now, where the engine says, and never ran twice."""
        for vm in vms:
            view = self.vm(vm)
            assert samples.hosts_of(vm.name) == (view["host_name"],), (vm.name, view)
            assert view["state"] == "up", view
        assert samples.doubled() == ()


@contextmanager
def running_center(
    lab: Lab,
    var: Path,
    profile: str,
    command: Command = process_command,
    transport: httpx2.BaseTransport | None = None,
    database_url: str = "",
) -> Iterator[Center]:
    """An engine that manages all hosts of a lab, for the duration of the block."""
    with EngineThread(var, command, database_url) as engine:
        token = token_file(engine.settings.var).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(
            base_url=engine.url, headers=headers, timeout=30, transport=transport
        ) as client:
            center = Center(lab, engine, client)
            center.build(profile)
            yield center


def planted(*roles: str, plant: str) -> Command:
    """Commands that run some roles through `tests.lab.planted` with one fault planted."""
    root = Path(__file__).resolve().parents[2]

    def command(role: str) -> list[str]:
        if role not in roles:
            return process_command(role)
        launcher = ["-m", "tests.lab.planted", plant, role]
        return ["/usr/bin/env", f"PYTHONPATH={root}", process_command(role)[0], *launcher]

    return command


def role_env(engine: Engine) -> dict[str, str]:
    """The environment of one more process of a running engine."""
    return dict(os.environ) | engine.settings.as_env()

"""The lab as its users see it: up, down, status, faults and the inventory for an engine.

    with_three = Lab("lab", k=0, hosts=3)
    with_three.up()
    with_three.crash("h1")

Invariants  `up` completes whatever is there and may be run at any time; `down` finds what it must
            end by state file, by name and by /proc, so it works after any crash. It ends only
            processes inside PID namespaces below ours and power controllers of this very lab.
Races       `up` and `down` hold the lab's lock; faults hold the host's.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

from domain.base import Frozen
from domain.errors import Conflict, Invalid, NotFound
from lab import bmc_control, guest_image, host_files, network, processes, requirements, sshd
from lab.bmc_control import BmcMode, Controller
from lab.hosts import Host
from lab.inventory import Inventory, inventory_of
from lab.processes import ProcessId
from lab.sampler import Sampler, guest_name
from lab.state import (
    HOSTS_MAX,
    HostPlan,
    LabState,
    Paths,
    host_named,
    load,
    locked,
    paths_of,
    write_private,
)

DEFAULT_HOSTS = 3
BMC_USERNAME = "operator"


class HostStatus(Frozen):
    """How one host fares, as the lab sees it from outside."""

    name: str
    uri: str
    power: bool
    link: bool
    libvirt: str  # answers, silent, frozen or off
    bmc: str  # the mode, or `absent`
    redfish: str  # the same of its second controller
    guests: tuple[str, ...]


class LabStatus(Frozen):
    """How a lab fares."""

    name: str
    network: str
    folder: str
    hosts: tuple[HostStatus, ...]


def default_var() -> Path:
    """HOLDFAST_VAR, or `var` in the working folder."""
    return Path(os.environ.get("HOLDFAST_VAR") or "var")


def _quiet(_: str) -> None:
    """Say nothing."""


class Lab:
    """One data centre in a box. Several may run side by side under different `name` and `k`.

    `hosts`, `k`: what `up` makes; None takes what the lab has, or 3 hosts on network 0. `cache`
    holds the guest image. `say` is called with one line for each step of progress.
    """

    def __init__(
        self,
        name: str = "lab",
        k: int | None = None,
        hosts: int | None = None,
        var: Path | None = None,
        cache: Path | None = None,
        say: Callable[[str], None] = _quiet,
    ) -> None:
        self.name = name
        self._var = (var or default_var()).resolve()
        self.paths: Paths = paths_of(self._var, name)
        self._cache = (cache or guest_image.cache_folder(self._var)).resolve()
        self._k = k
        self._count = hosts
        self._say = say

    # -- life ----------------------------------------------------------------------------------

    def up(self) -> None:
        """Build the lab or complete it: image, network, controllers, hosts; idempotent.

        Hosts that are off are powered on, cables are plugged, frozen daemons go on; power
        controllers keep their mode.
        Raises Refused when the machine lacks something, Conflict when the lab exists differently.
        """
        requirements.require()
        with locked(self.paths.root):
            state = self._plan()
            self._say(f"network: {network.bridge_name(state.name)}, 10.77.{state.k}.0/24")
            network.up_bridge(state.name, state.k)
            # Only now: a lab whose network is taken leaves nothing behind that must be undone.
            write_private(self.paths.state, state.model_dump_json(indent=2))
            self.paths.shared.mkdir(exist_ok=True)
            self._say("guest image: building it unless it is cached")
            guest_image.build(self._cache)
            for plan in state.hosts:
                self._up_host(state, plan)
        for plan in state.hosts:
            self._host(plan.name).wait_ready()
            self._say(f"{plan.name}: libvirt answers at {plan.uri}")

    def _up_host(self, state: LabState, plan: HostPlan) -> None:
        self._say(f"{plan.name}: power controller on port {plan.bmc_port}, power on")
        host_files.install(state.name, plan, self.paths.host(plan.name))
        sshd.install(self.paths.root, plan, self.paths.host(plan.name))
        network.up_host(state.name, plan)
        bmc_control.start(self.paths, plan)
        if bmc_control.was_started(self.paths.host(plan.name), Controller.REDFISH):
            bmc_control.start(self.paths, plan, Controller.REDFISH)
        host = Host(state, self.paths, plan)
        host.power_on()
        host.thaw()

    def _plan(self) -> LabState:
        state = load(self.paths) or self._new_state()
        wanted = (self._count or len(state.hosts), state.k if self._k is None else self._k)
        if wanted != (len(state.hosts), state.k):
            raise Conflict(
                "LAB_DIFFERS",
                f"lab {self.name} exists with {len(state.hosts)} hosts on network {state.k}",
                next_step=f"`holdfast lab down --name {self.name}` first, or use another name",
            )
        return state

    def _new_state(self) -> LabState:
        count = DEFAULT_HOSTS if self._count is None else self._count
        if not 1 <= count <= HOSTS_MAX:
            raise Invalid("LAB_HOSTS_INVALID", f"{count} hosts: it must be 1 to {HOSTS_MAX}")
        k = self._k or 0
        ipmi = _free_ports(socket.SOCK_DGRAM, count)
        ports = zip(ipmi, _free_ports(socket.SOCK_STREAM, count), strict=True)
        return LabState(
            name=self.name,
            k=k,
            bmc_username=BMC_USERNAME,
            bmc_password=secrets.token_hex(8),
            hosts=tuple(
                HostPlan(
                    name=f"h{number}",
                    number=number,
                    uuid=uuid5(NAMESPACE_DNS, f"h{number}.{self.paths.root}"),
                    address=network.host_address(k, number),
                    bmc_port=bmc_port,
                    redfish_port=redfish_port,
                )
                for number, (bmc_port, redfish_port) in enumerate(ports, start=1)
            ),
        )

    def down(self) -> None:
        """End every process, then remove every interface, namespace and file; idempotent."""
        left = network.interfaces_of(self.name) + network.namespaces_of(self.name)
        if not left and not self.paths.root.exists():
            self._say(f"lab {self.name} is not up")
            return
        with locked(self.paths.root):
            for bmc in bmc_control.find_all(self.paths.root):
                processes.end(bmc)
            # Cables first: even the end of a lab does not tell its peers good-bye.
            self._say("hosts: power off")
            for init in self._inits():
                processes.end(init, deadline_s=30)
            self._say("network: removing it")
            network.down(self.name)
            shutil.rmtree(self.paths.root)

    def _inits(self) -> list[ProcessId]:
        """Process 1 of every host of this lab, recorded or left over."""
        inside = {
            pid
            for namespace in network.namespaces_of(self.name)
            for pid in network.pids_in(namespace)
        }
        folder = f"{self.paths.root}/hosts/"
        scripts = {
            pid
            for pid in processes.pids()
            if any(part.startswith(folder) for part in processes.arguments(pid)[:2])
        }
        found = [pid for pid in sorted(inside | scripts) if processes.is_namespace_init(pid)]
        return [process for pid in found if (process := processes.identify(pid))]

    # -- faults --------------------------------------------------------------------------------

    def crash(self, host: str) -> None:
        """Cut a host's power silently; its power controller lives on and says off."""
        self._host(host).cut()

    def power_on(self, host: str) -> None:
        """Press the power button of a host that is off; its cable is plugged in. Idempotent."""
        self._host(host).power_on()

    def wait_ready(self, host: str) -> None:
        """Wait until libvirt answers on a host; raises NoAnswer."""
        self._host(host).wait_ready()

    def isolate(self, host: str) -> None:
        """Pull a host's cable; guests run on, the power controller stays reachable."""
        self._host(host).isolate()

    def heal(self, host: str) -> None:
        """Undo `isolate` and `hang`; a host that is off stays off."""
        self._host(host).plug()
        self._host(host).thaw()

    def hang(self, host: str) -> None:
        """Freeze libvirtd; guests run on."""
        self._host(host).freeze()

    def unhang(self, host: str) -> None:
        """Let a frozen libvirtd go on."""
        self._host(host).thaw()

    def kill_libvirtd(self, host: str) -> None:
        """End libvirtd alone; it is started again at once, guests run on."""
        self._host(host).kill_libvirtd()

    def bmc(self, host: str, mode: BmcMode | str) -> None:
        """Change how a host's IPMI controller behaves: ok, dead, lying or hanging."""
        bmc_control.set_mode(self.paths, host_named(self.state(), host), _mode(mode))

    def redfish(self, host: str, mode: BmcMode | str = BmcMode.OK) -> None:
        """Change how a host's Redfish controller behaves; one that it lacks is given to it."""
        plan = host_named(self.state(), host)
        if not plan.redfish_port:
            raise Conflict(
                "LAB_TOO_OLD",
                f"lab {self.name} was made before there were Redfish controllers",
                next_step=f"`holdfast lab down --name {self.name}`, then `up`",
            )
        bmc_control.set_mode(self.paths, plan, _mode(mode), Controller.REDFISH)

    # -- what there is -------------------------------------------------------------------------

    def state(self) -> LabState:
        """What `up` decided; raises NotFound when this lab is not up."""
        state = load(self.paths)
        if state is None:
            raise NotFound(
                "LAB_NOT_UP",
                f"lab {self.name} is not up in {self.paths.root}",
                next_step=f"holdfast lab up --name {self.name}",
            )
        return state

    def _host(self, name: str) -> Host:
        state = self.state()
        return Host(state, self.paths, host_named(state, name))

    def inventory(self) -> Inventory:
        """What an engine has to know: hosts with URIs and power controllers, guest, storage."""
        state = self.state()
        return Inventory(
            name=state.name,
            hosts=tuple(inventory_of(state, plan, self.paths) for plan in state.hosts),
            guest=guest_image.boot(self._cache),
            shared=str(self.paths.shared),
        )

    def pid_namespaces(self) -> Mapping[int, str]:
        """The PID-namespace inode of each running host."""
        found = ((self._host(plan.name).pid_namespace(), plan.name) for plan in self.state().hosts)
        return {inode: name for inode, name in found if inode is not None}

    def sampler(self) -> Sampler:
        """An independent counter of the copies of each VM in this lab; use it with `with`."""
        return Sampler(self.pid_namespaces)

    def status(self) -> LabStatus:
        """How the lab fares; reads only."""
        state = self.state()
        guests = self._guests()
        return LabStatus(
            name=state.name,
            network=f"10.77.{state.k}.0/24",
            folder=str(self.paths.root),
            hosts=tuple(self._status_of(plan, guests.get(plan.name, ())) for plan in state.hosts),
        )

    def _status_of(self, plan: HostPlan, guests: tuple[str, ...]) -> HostStatus:
        host = self._host(plan.name)
        folder = self.paths.host(plan.name)

        def manners(which: Controller) -> str:
            found = bmc_control.process_of(folder, which)
            return bmc_control.mode_of(folder, which).value if found else "absent"

        return HostStatus(
            name=plan.name,
            uri=plan.uri,
            power=host.is_on(),
            link=network.link_is_up(self.name, plan.number),
            libvirt=_libvirt_state(host),
            bmc=manners(Controller.IPMI),
            redfish=manners(Controller.REDFISH),
            guests=guests,
        )

    def _guests(self) -> dict[str, tuple[str, ...]]:
        hosts = self.pid_namespaces()
        found: dict[str, tuple[str, ...]] = {}
        for pid in processes.pids():
            vm = guest_name(processes.arguments(pid))
            if vm is None:
                continue
            host = hosts.get(processes.pid_namespace(pid) or 0)
            if host is not None:
                found[host] = (*found.get(host, ()), vm)
        return found


def _libvirt_state(host: Host) -> str:
    if not host.is_on():
        return "off"
    if host.is_frozen():
        return "frozen"
    return "answers" if host.answers(timeout_s=2) else "silent"


def _mode(mode: BmcMode | str) -> BmcMode:
    try:
        return BmcMode(mode)
    except ValueError:
        raise Invalid(
            "LAB_BMC_MODE", f"{mode!r} is no mode", next_step=f"one of {', '.join(BmcMode)}"
        ) from None


def _free_ports(kind: socket.SocketKind, count: int) -> list[int]:
    held = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()

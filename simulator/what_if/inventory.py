"""A live engine's inventory as a file: what one needs to play a loss, and nothing secret.

Written by `holdfast simulate export`, and meant to be read and changed by people: a rack that the
engine was not told is written into it by hand.
"""

from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError

from domain.base import Frozen
from domain.capacity import memory_allowed_mib, vcpus_allowed
from domain.errors import Invalid
from domain.inventory import PLACE
from domain.profiles import Profile
from simulator.setup import FenceLimits, GroupSetup, HostSetup, Setup, VmSetup

FORMAT = "holdfast-inventory/1"

Json = dict[str, Any]


class Lists(Protocol):
    """What is needed of the API: whole lists."""

    def all(self, path: str, **params: Any) -> list[Json]:
        """Every item of a list."""
        ...


class Host(Frozen):
    """One host of a cluster, in the state that it had."""

    name: str
    state: str = "up"
    rack: str = Field(default="", pattern=PLACE)
    memory_mib: int
    cpus: int = 1
    fence_devices: int = 0
    blocks_on_power_loss: bool = False  # its power controllers lose their supply with it


class Vm(Frozen):
    """One VM; `host` where it ran."""

    name: str
    host: str | None = None
    memory_mib: int
    vcpus: int = 1
    protected: bool = False
    priority: int = 50
    budget_s: int | None = None
    depends_on: tuple[str, ...] = ()


class Cluster(Frozen):
    """One cluster with all that stands in it."""

    name: str
    profile: Profile
    armed: bool = True
    limits: FenceLimits = FenceLimits()
    vcpu_overcommit: float | None = None
    memory_overcommit: float = 1.0
    hosts: tuple[Host, ...] = ()
    vms: tuple[Vm, ...] = ()
    groups: tuple[GroupSetup, ...] = ()

    def setup(self) -> Setup:
        """What is put on the stage: hosts in service with what ran on them, and what ran nowhere.

        A host that was out of service carries nothing, so it is left out, as is a VM that ran on
        one: nobody knows whether it is alive. Invalid where a host holds more memory or vCPUs than
        it may: nothing could put its VMs there.
        """
        serving = [host for host in self.hosts if host.state == "up"]
        names = {host.name for host in serving}
        vms = [vm for vm in _in_order(self.vms) if vm.host is None or vm.host in names]
        known = {vm.name for vm in vms}
        for host in serving:
            self._refuse_crowded(host, vms)
        return Setup(
            hosts=tuple(_host_setup(host) for host in serving),
            vms=tuple(_vm_setup(vm, known) for vm in vms),
            groups=tuple(_group_setup(group, known, names) for group in self.groups),
            profile=self.profile,
            armed=self.armed,
            limits=self.limits,
            vcpu_overcommit=self.vcpu_overcommit,
            memory_overcommit=self.memory_overcommit,
        )

    def _refuse_crowded(self, host: Host, vms: list[Vm]) -> None:
        here = [vm for vm in vms if vm.host == host.name]
        mib = memory_allowed_mib(host.memory_mib, self.memory_overcommit)
        vcpus = vcpus_allowed(host.cpus, self.vcpu_overcommit)
        for unit, name, held, most in (
            ("MiB", "memory_overcommit", sum(vm.memory_mib for vm in here), mib),
            ("vCPUs", "vcpu_overcommit", sum(vm.vcpus for vm in here), vcpus),
        ):
            if most is not None and held > most:
                limit = f"may hold {most} by the limit of {self.name}"
                raise Invalid(
                    "INVENTORY_CROWDED",
                    f"{host.name} holds {held} {unit}, and {limit}",
                    next_step=f"write a larger `{name}` into the file, or take VMs away",
                    host=host.name,
                )


class Inventory(Frozen):
    """Every cluster of an engine."""

    format: str = FORMAT
    exported_at: str = ""
    clusters: tuple[Cluster, ...] = Field(default=())


def read_inventory(path: Path) -> Inventory:
    """The inventory in a file. Invalid: no such file, no JSON, another format, or wrong fields."""
    try:
        found = Inventory.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _refused(f"{path}: {where}: {first['msg']}") from error
    if found.format != FORMAT:
        raise _refused(f"{path} has the format {found.format!r}, not {FORMAT!r}")
    return found


def inventory_of(api: Lists, exported_at: str) -> Inventory:
    """The inventory behind a REST API, in its own lists."""
    groups, devices = api.all("/affinity-groups"), api.all("/fence-devices")
    hosts, vms = api.all("/hosts"), api.all("/vms")
    return Inventory(
        exported_at=exported_at,
        clusters=tuple(
            Cluster(
                name=cluster["name"],
                profile=Profile(cluster["profile"]),
                armed=cluster["armed"],
                limits=_limits(cluster),
                vcpu_overcommit=cluster.get("vcpu_overcommit"),  # an earlier release has none
                memory_overcommit=cluster.get("memory_overcommit", 1.0),
                hosts=tuple(_host(h, devices) for h in _of(cluster, hosts)),
                vms=tuple(_vm(vm, vms) for vm in _of(cluster, vms)),
                groups=tuple(_group(g, vms, hosts) for g in _of(cluster, groups)),
            )
            for cluster in api.all("/clusters")
        ),
    )


def _of(cluster: Json, rows: list[Json]) -> list[Json]:
    return [row for row in rows if row["cluster_id"] == cluster["id"]]


def _limits(row: Json) -> FenceLimits:
    # An engine of an earlier release tells none.
    return FenceLimits(**{name: row[name] for name in FenceLimits.model_fields if name in row})


def _host(row: Json, devices: list[Json]) -> Host:
    return Host(
        name=row["name"],
        state=row["state"],
        rack=row.get("rack", ""),
        memory_mib=row["memory_mib"],
        cpus=max(row["cpus"], 1),
        fence_devices=sum(device["host_id"] == row["id"] for device in devices),
        blocks_on_power_loss=row["fencing"]["blocks_on_power_loss"],
    )


def _vm(row: Json, vms: list[Json]) -> Vm:
    names = {vm["id"]: vm["name"] for vm in vms}
    return Vm(
        name=row["name"],
        host=row["host_name"],
        memory_mib=row["memory_mib"],
        vcpus=row["vcpus"],
        protected=row["protected"],
        priority=row["priority"],
        budget_s=row["budget_s"],
        depends_on=tuple(names[other] for other in row["depends_on"] if other in names),
    )


def _group(row: Json, vms: list[Json], hosts: list[Json]) -> GroupSetup:
    return GroupSetup(
        name=row["name"],
        together=row["together"],
        hard=row["hard"],
        vms=_names(row["vm_ids"], vms),
        hosts=_names(row["host_ids"], hosts),
    )


def _names(ids: list[str], rows: list[Json]) -> tuple[str, ...]:
    names = {row["id"]: row["name"] for row in rows}
    return tuple(names[each] for each in ids if each in names)


def _host_setup(host: Host) -> HostSetup:
    return HostSetup(
        name=host.name,
        memory_mib=host.memory_mib,
        cpus=host.cpus,
        rack=host.rack,
        fence_devices=host.fence_devices,
    )


def _vm_setup(vm: Vm, known: set[str]) -> VmSetup:
    return VmSetup(
        name=vm.name,
        host=vm.host,
        memory_mib=vm.memory_mib,
        vcpus=vm.vcpus,
        protected=vm.protected,
        priority=vm.priority,
        after=tuple(name for name in vm.depends_on if name in known),
    )


def _group_setup(group: GroupSetup, vms: set[str], hosts: set[str]) -> GroupSetup:
    return group.model_copy(
        update={
            "vms": tuple(name for name in group.vms if name in vms),
            "hosts": tuple(name for name in group.hosts if name in hosts),
        }
    )


def _in_order(vms: tuple[Vm, ...]) -> list[Vm]:
    """Those that others depend on first, as they have to be created; Invalid for a circle."""
    left, done = {vm.name: vm for vm in vms}, list[Vm]()
    while left:
        ready = [vm for vm in left.values() if not any(name in left for name in vm.depends_on)]
        if not ready:
            raise _refused(f"these VMs depend on each other in a circle: {', '.join(sorted(left))}")
        for vm in ready:
            done.append(left.pop(vm.name))
    return done


def _refused(why: str) -> Invalid:
    return Invalid(
        "INVENTORY_INVALID",
        why,
        next_step="write it anew with `holdfast simulate export > inventory.json`",
    )

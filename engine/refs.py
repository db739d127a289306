"""From rows to the values that travel in orders.

A VM's cards stand in a table of their own (`store.vms.nics_of`), so they come as rows beside it.
"""

from collections.abc import Sequence
from functools import cache
from uuid import UUID

from domain.inventory import DEFAULT_MACHINE, FenceDevice, GuestSpec, Nic, OnHang, VirtType
from domain.orders import HostRef, RunRef, StartLimits
from domain.placement import Guest
from domain.profiles import Policy, Profile, policy_for
from domain.readiness import ReadyRule, ReadyWhen
from store.rows import Row


def host_ref(host: Row) -> HostRef:
    """A host at its present epoch."""
    return HostRef(host_id=host["id"], name=host["name"], uri=host["uri"], epoch=host["epoch"])


def guest_spec(vm: Row, virt_type: str, nics: Sequence[Row]) -> GuestSpec:
    """What a host needs to define a VM."""
    return GuestSpec(
        vm_id=vm["id"],
        name=vm["name"],
        memory_mib=vm["memory_mib"],
        vcpus=vm["vcpus"],
        virt_type=VirtType(virt_type),
        disks=vm["spec"]["disks"],
        boot=vm["spec"]["boot"],
        nics=tuple(nic_of(row) for row in nics),
        machine=vm["spec"].get("machine", DEFAULT_MACHINE),
        agent=_asks_agent(vm),
    )


def _asks_agent(vm: Row) -> bool:
    return (vm["ready"] or {}).get("when") == ReadyWhen.AGENT or vm["on_hang"] != OnHang.OFF


def guest_of(vm: Row, depends_on: tuple[UUID, ...] = ()) -> Guest:
    """A VM as the planner sees it."""
    return Guest(
        vm_id=vm["id"],
        name=vm["name"],
        memory_mib=vm["memory_mib"],
        protected=vm["protected"],
        priority=vm["priority"],
        depends_on=depends_on,
        home_id=vm["home_id"],
        vcpus=vm["vcpus"],
    )


def nic_of(row: Row) -> Nic:
    """One card, with what its network is on a host."""
    return Nic(network=row["network"], bridge=row["bridge"], mac=row["mac"], model=row["model"])


def run_ref(run: Row, vm: Row, host: Row, virt_type: str, nics: Sequence[Row]) -> RunRef:
    """A run with all that a step needs."""
    return RunRef(
        run_id=run["id"],
        operation_id=run["operation_id"],
        host_id=host["id"],
        host_name=host["name"],
        uri=host["uri"],
        epoch=run["epoch"],
        generation=run["generation"],
        spec=guest_spec(vm, virt_type, nics),
        gave_way=tuple(run["gave_way"] or ()),
    )


def start_limits(vm: Row, *, insist: bool = True) -> StartLimits:
    """How often a VM is started again; an unprotected one that a person starts has one round."""
    rounds = vm["max_restart"] if insist or vm["protected"] else 0
    return StartLimits(max_restart=rounds, max_relocate=vm["max_relocate"], insist=insist)


def ready_rule(vm: Row) -> ReadyRule | None:
    """When a VM is ready; None: once it runs."""
    return None if vm["ready"] is None else ReadyRule.model_validate(vm["ready"])


def fence_device(row: Row) -> FenceDevice:
    """A power controller without its secrets."""
    return FenceDevice.model_validate({field: row[field] for field in FenceDevice.model_fields})


def policy_of(cluster: Row) -> Policy:
    """The policy of a cluster: its profile, and what it says otherwise."""
    own = {name: cluster[name] for name in ("fence_limit_s", "starts_per_host")}
    return _policies(Profile(cluster["profile"]), **own)


@cache
def _policies(profile: Profile, **own: float) -> Policy:
    return policy_for(profile, **own)

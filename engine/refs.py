"""From rows to the values that travel in orders."""

from domain.inventory import FenceDevice, GuestSpec, VirtType
from domain.orders import HostRef, RunRef
from domain.profiles import Policy, Profile, policy_for
from store.rows import Row


def host_ref(host: Row) -> HostRef:
    """A host at its present epoch."""
    return HostRef(host_id=host["id"], name=host["name"], uri=host["uri"], epoch=host["epoch"])


def guest_spec(vm: Row, virt_type: str) -> GuestSpec:
    """What a host needs to define a VM."""
    return GuestSpec(
        vm_id=vm["id"],
        name=vm["name"],
        memory_mib=vm["memory_mib"],
        vcpus=vm["vcpus"],
        virt_type=VirtType(virt_type),
        disks=vm["spec"]["disks"],
        boot=vm["spec"]["boot"],
    )


def run_ref(run: Row, vm: Row, host: Row, virt_type: str) -> RunRef:
    """A run with all that a step needs."""
    return RunRef(
        run_id=run["id"],
        operation_id=run["operation_id"],
        host_id=host["id"],
        host_name=host["name"],
        uri=host["uri"],
        epoch=run["epoch"],
        generation=run["generation"],
        spec=guest_spec(vm, virt_type),
    )


def fence_device(row: Row) -> FenceDevice:
    """A power controller without its secrets."""
    fields = ("id", "host_id", "name", "agent", "options", "deadline_s")
    return FenceDevice.model_validate({field: row[field] for field in fields})


def policy_of(cluster: Row) -> Policy:
    """The policy of a cluster's profile."""
    return policy_for(Profile(cluster["profile"]))

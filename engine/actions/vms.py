"""Starting and stopping VMs."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, Invalid, NotFound
from domain.inventory import HostState, RunState
from domain.orders import StartVmOrder, StopVmOrder
from engine.actions.base import Accepted, Action, Params, Tx, existing
from engine.refs import policy_of, run_ref
from store import inventory, runs
from store.rows import Row

STOPPABLE = (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)


class StartVm(Params):
    """Start a VM, on a host of the caller's choice or of the engine's."""

    vm_id: UUID
    host_id: UUID | None = None


class StartVmAction(Action[StartVm]):
    """`vm.start`: refused unless the VM is known to be down."""

    params = StartVm
    kind = "vm.start"
    workflow = "StartVm"

    async def accept(self, tx: Tx, params: StartVm) -> Accepted:
        """Check that the VM is down and could fit somewhere, and order its start."""
        vm = await existing(tx, "vm", params.vm_id)
        cluster = await existing(tx, "cluster", vm["cluster_id"])
        await _refuse_running(tx, vm)
        await _refuse_too_big(tx, vm, params.host_id)
        await inventory.want_vm(tx.connection, vm["id"], wanted=True)
        order = StartVmOrder(
            operation_id=tx.operation_id,
            context=tx.context,
            policy=policy_of(cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            host_id=params.host_id,
        )
        return Accepted("vm", vm["id"], vm["name"], vm["cluster_id"], (("vm", vm["id"]),), order)


class StopVm(Params):
    """Stop a VM: gracefully first, or hard at once with `force`."""

    vm_id: UUID
    force: bool = False


class StopVmAction(Action[StopVm]):
    """`vm.stop`: refused unless the VM runs on a host that answers."""

    params = StopVm
    kind = "vm.stop"
    workflow = "StopVm"

    async def accept(self, tx: Tx, params: StopVm) -> Accepted:
        """Check that the VM runs and order its stop."""
        vm = await existing(tx, "vm", params.vm_id)
        cluster = await existing(tx, "cluster", vm["cluster_id"])
        run = await runs.active_run(tx.connection, vm["id"])
        if run is None or run["state"] not in STOPPABLE:
            raise Conflict(
                "VM_NOT_RUNNING",
                f"{vm['name']} is {'down' if run is None else 'not started yet'}",
                next_step="nothing to do" if run is None else "wait for its start to end",
                vm=vm["name"],
            )
        host = await existing(tx, "host", run["host_id"])
        if host["state"] not in (HostState.UP, HostState.CONNECTING):
            raise _silent(vm, host)
        await inventory.want_vm(tx.connection, vm["id"], wanted=False)
        order = StopVmOrder(
            operation_id=tx.operation_id,
            context=tx.context,
            policy=policy_of(cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            run=run_ref(run, vm, host, cluster["virt_type"]),
            force=params.force,
        )
        return Accepted("vm", vm["id"], vm["name"], vm["cluster_id"], (("vm", vm["id"]),), order)


async def _refuse_running(tx: Tx, vm: Row) -> None:
    run = await runs.active_run(tx.connection, vm["id"])
    if run is None:
        await refuse_unproven(tx.connection, vm)
        return
    host = await existing(tx, "host", run["host_id"])
    if host["state"] not in (HostState.UP, HostState.CONNECTING):
        raise _silent(vm, host)
    raise Conflict(
        "VM_NOT_DOWN",
        f"{vm['name']} is {run['state']} on {host['name']}",
        next_step="stop it first, or leave it running",
        vm=vm["name"],
        host=host["name"],
        state=run["state"],
    )


async def refuse_unproven(connection: AsyncConnection, vm: Row) -> None:
    """Conflict while a copy that was held to be lost may run after all."""
    host = await runs.unproven_host(connection, vm["id"])
    if host is not None:
        raise Conflict(
            "CERTIFICATE_VOID",
            f"{vm['name']} may still run on {host}: the proof that this host is dead was withdrawn",
            next_step=f"settle it first: `holdfast host activate {host}`",
            vm=vm["name"],
            host=host,
        )


def _silent(vm: Row, host: Row) -> Conflict:
    return Conflict(
        "HOST_NOT_PROVEN_DEAD",
        f"{vm['name']} last ran on {host['name']}, which is {host['state']}: no evidence says that "
        "it is off, and a second copy would destroy the VM's disk",
        next_step="wait for the host's incident to be settled: `holdfast incident list`",
        vm=vm["name"],
        host=host["name"],
        host_state=host["state"],
    )


async def _refuse_too_big(tx: Tx, vm: Row, host_id: UUID | None) -> None:
    hosts = await inventory.listing(tx.connection, "host", cluster_id=vm["cluster_id"])
    if host_id is not None:
        hosts = [host for host in hosts if host["id"] == host_id]
        if not hosts:
            raise NotFound(
                "HOST_NOT_FOUND",
                f"there is no host {host_id} in the VM's cluster",
                next_step="choose a host of the VM's cluster, or leave the choice to the engine",
                id=str(host_id),
            )
    # A host that was never admitted has not said yet how much it has.
    known = [host for host in hosts if host["memory_mib"] > 0]
    largest = max((host["memory_mib"] for host in known), default=0)
    if not known or vm["memory_mib"] > largest:
        raise Invalid(
            "VM_TOO_BIG",
            f"{vm['name']} needs {vm['memory_mib']} MiB; the largest of {len(known)} hosts has "
            f"{largest} MiB in all",
            next_step="give the VM less memory or add a larger host",
            vm=vm["name"],
            needs_mib=vm["memory_mib"],
            largest_mib=largest,
        )

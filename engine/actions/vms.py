"""Starting and stopping VMs."""

from dataclasses import dataclass
from uuid import UUID

from pydantic import Field

from domain.errors import Conflict, Invalid, NotFound, Refused
from domain.inventory import HostState, RunState, VmState
from domain.locks import exclusive
from domain.orders import RunRef, StartLimits, StartVmOrder, StopVmOrder
from domain.permissions import OWN_PARTS, Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.refs import policy_of, run_ref, start_limits
from store import inventory, runs
from store.rows import Row


@dataclass(frozen=True)
class VmFacts:
    """What starting or stopping a VM looks at."""

    vm: Row
    cluster: Row
    run: Row | None = None
    host: Row | None = None


class StartVm(Params):
    """Start a VM, on a host of the caller's choice or of the engine's.

    `licence_id` is the certificate under which a recovery follows a lost run. A VM that failed is
    tried on the host `prefer_id` first, and not on those to `avoid`.
    """

    vm_id: UUID
    host_id: UUID | None = None
    licence_id: UUID | None = None
    prefer_id: UUID | None = None
    avoid: tuple[UUID, ...] = Field(default=(), max_length=1000)


class StartVmAction(Action[StartVm, VmFacts]):
    """`vm.start`: refused unless the VM is known to be down."""

    params = StartVm
    kind = "vm.start"
    permission = Permission.VM_OPERATE
    workflow = "StartVm"
    pausable = True
    own_fields = frozenset({"licence_id", "prefer_id", "avoid"})
    collects = True

    async def plan(self, tx: Tx, params: StartVm, problems: Problems) -> Plan[VmFacts]:
        """Check that the VM is down and could fit somewhere."""
        facts = await vm_facts(tx, params.vm_id)
        vm = facts.vm
        mine = facts.run is not None and facts.run["operation_id"] == tx.operation_id
        if not problems.lenient:
            # Within a recovery one such VM must not keep the others from being claimed: its own
            # start is judged again, and refused, when its run is claimed.
            problems.extend(await unproven(tx, vm) if facts.run is None else ())
            problems.extend(await _too_big(tx, vm, params.host_id))
        where = "the host with the most room" if params.host_id is None else str(params.host_id)
        return Plan(
            target=vm_target(vm),
            facts=facts,
            # A later try goes on with the run that an earlier one has left.
            state=VmState.DOWN if mine else await tx.facts.state_of_vm(vm["id"]),
            locks=(exclusive("vm", vm["id"]),),
            steps=(f"place on {where}", "define", "start", "read back as running"),
            protected=vm["protected"],
        )

    async def execute(self, tx: Tx, params: StartVm, plan: Plan[VmFacts]) -> Done:
        """Note that the VM is wanted, and order its start."""
        vm, run = plan.facts.vm, plan.facts.run
        tx.writes.update(inventory.WANT_VM, {"key": vm["id"], "wish": True})
        order = StartVmOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            host_id=params.host_id,
            licence_id=params.licence_id,
            prefer_id=params.prefer_id,
            avoid=params.avoid,
            limits=self._limits(tx, params, vm),
            run=None if run is None else await _ref(tx, plan.facts),
        )
        return Done(order=order, before={"wanted": vm["wanted"]}, after={"wanted": True})

    def _limits(self, tx: Tx, params: StartVm, vm: Row) -> StartLimits | None:
        """A host that a person named has one try."""
        if params.host_id is not None:
            return None
        own = params.licence_id is not None or tx.door.role_of(tx.context.principal) in OWN_PARTS
        return start_limits(vm, insist=own)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Give back a place that was reserved and never claimed."""
        vm_id = operation["target_id"]
        if await tx.facts.active_run(vm_id) is None:
            return "nothing was done yet"
        if await runs.end_unclaimed(tx.connection, vm_id, operation["id"], tx.now):
            return "its reserved place was given back"
        return "nothing was done yet"

    def forbidden(self, params: StartVm, plan: Plan[VmFacts], allowed: tuple[str, ...]) -> Refused:
        """It runs, or nobody knows."""
        vm, run, host = plan.facts.vm, plan.facts.run, plan.facts.host
        assert run is not None
        assert host is not None
        if host["state"] not in (HostState.UP, HostState.CONNECTING):
            return silent(vm, host)
        return Conflict(
            "VM_NOT_DOWN",
            f"{vm['name']} is {run['state']} on {host['name']}",
            next_step="stop it first, or leave it running",
            vm=vm["name"],
            host=host["name"],
            state=run["state"],
        )


class StopVm(Params):
    """Stop a VM: gracefully first, or hard at once with `force`.

    `planned`: it is stopped with its host and comes back, so that it stays wanted.
    For the VM `for_vm_id`, which needs its room: then it stays wanted, and is started again.
    """

    vm_id: UUID
    force: bool = False
    planned: bool = False
    for_vm_id: UUID | None = None


class StopVmAction(Action[StopVm, VmFacts]):
    """`vm.stop`: refused unless the VM runs on a host that answers."""

    params = StopVm
    kind = "vm.stop"
    own_fields = frozenset({"planned", "for_vm_id"})
    permission = Permission.VM_OPERATE
    workflow = "StopVm"
    pausable = True
    collects = True

    async def plan(self, tx: Tx, params: StopVm, problems: Problems) -> Plan[VmFacts]:
        """Check that the VM runs, and where."""
        facts = await vm_facts(tx, params.vm_id)
        vm, run, host = facts.vm, facts.run, facts.host
        if run is not None and run["state"] == RunState.PLACED:
            problems.append(_not_running(vm, "not started yet", "wait for its start to end"))
        elif host is not None and host["state"] == HostState.RECONCILING:
            problems.append(silent(vm, host))
        how = ("end it hard",) if params.force else ("ask it to shut down", "wait for its end")
        return Plan(
            target=vm_target(vm),
            facts=facts,
            state=await tx.facts.state_of_vm(vm["id"]),
            locks=(exclusive("vm", vm["id"]),),
            steps=(*how, "undefine, read back as gone"),
            protected=vm["protected"],
        )

    async def execute(self, tx: Tx, params: StopVm, plan: Plan[VmFacts]) -> Done:
        """Note that the VM is not wanted any more, unless it is to come back; order its stop."""
        vm = plan.facts.vm
        comes_back = params.planned or params.for_vm_id is not None
        wish = comes_back and vm["wanted"]
        tx.writes.update(inventory.WANT_VM, {"key": vm["id"], "wish": wish})
        order = StopVmOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            vm_id=vm["id"],
            vm_name=vm["name"],
            run=await _ref(tx, plan.facts),
            force=params.force,
        )
        return Done(order=order, before={"wanted": vm["wanted"]}, after={"wanted": wish})

    def forbidden(self, params: StopVm, plan: Plan[VmFacts], allowed: tuple[str, ...]) -> Refused:
        """It is down, or nobody knows."""
        vm, run, host = plan.facts.vm, plan.facts.run, plan.facts.host
        if run is not None and plan.state == VmState.MIGRATING:
            return moving(vm)
        if host is not None:
            return silent(vm, host)
        return _not_running(vm, "down", "nothing to do")


async def vm_facts(tx: Tx, vm_id: UUID) -> VmFacts:
    """A VM with its cluster, its active run and that run's host; NotFound."""
    vm = await existing(tx, "vm", vm_id)
    cluster = await existing(tx, "cluster", vm["cluster_id"])
    run = await tx.facts.active_run(vm_id)
    host = None if run is None else await existing(tx, "host", run["host_id"])
    return VmFacts(vm=vm, cluster=cluster, run=run, host=host)


async def _ref(tx: Tx, facts: VmFacts) -> RunRef:
    vm, run, host = facts.vm, facts.run, facts.host
    assert run is not None
    assert host is not None
    return run_ref(run, vm, host, facts.cluster["virt_type"], await tx.facts.nics_of(vm["id"]))


def vm_target(vm: Row) -> Target:
    """A VM as an operation names it."""
    return Target("vm", vm["id"], vm["name"], vm["cluster_id"])


async def unproven(tx: Tx, vm: Row) -> tuple[Refused, ...]:
    """Conflict while a copy that was held to be lost may run after all."""
    host = await tx.facts.unproven_host(vm["id"])
    if host is None:
        return ()
    return (
        Conflict(
            "CERTIFICATE_VOID",
            f"{vm['name']} may still run on {host}: the proof that this host is dead was withdrawn",
            next_step=f"settle it first: `holdfast host activate {host}`",
            vm=vm["name"],
            host=host,
        ),
    )


async def host_for(tx: Tx, vm: Row, host_id: UUID, *, next_step: str) -> Row:
    """A host that is named for a VM; NotFound unless it is one of the VM's cluster."""
    host = await existing(tx, "host", host_id)
    if host["cluster_id"] != vm["cluster_id"]:
        raise NotFound(
            "HOST_NOT_FOUND",
            f"{host['name']} is no host of the VM's cluster",
            next_step=next_step,
            id=str(host_id),
        )
    return host


def silent(vm: Row, host: Row) -> Conflict:
    """The refusal to touch a VM whose host nobody hears."""
    return Conflict(
        "HOST_NOT_PROVEN_DEAD",
        f"{vm['name']} last ran on {host['name']}, which is {host['state']}: no evidence says that "
        "it is off, and a second copy would destroy the VM's disk",
        next_step="wait for the host's incident to be settled: `holdfast incident list`",
        vm=vm["name"],
        host=host["name"],
        host_state=host["state"],
    )


def moving(vm: Row) -> Conflict:
    """The refusal to touch a VM that may be on either of two hosts."""
    return Conflict(
        "VM_MIGRATING",
        f"{vm['name']} is being moved to another host",
        next_step="wait for the end of its migration, or cancel that: `holdfast op list`",
        vm=vm["name"],
    )


def _not_running(vm: Row, how: str, next_step: str) -> Conflict:
    return Conflict("VM_NOT_RUNNING", f"{vm['name']} is {how}", next_step=next_step, vm=vm["name"])


async def _too_big(tx: Tx, vm: Row, host_id: UUID | None) -> tuple[Refused, ...]:
    known, largest = await tx.facts.largest_host(vm["cluster_id"])
    if host_id is not None:
        hosts = await tx.facts.hosts_of(vm["cluster_id"])
        chosen = [host["memory_mib"] for host in hosts if host["id"] == host_id]
        if not chosen:
            return (
                NotFound(
                    "HOST_NOT_FOUND",
                    f"there is no host {host_id} in the VM's cluster",
                    next_step="choose a host of its cluster, or leave the choice to the engine",
                    id=str(host_id),
                ),
            )
        known, largest = int(chosen[0] > 0), chosen[0]
    if known and vm["memory_mib"] <= largest:
        return await _too_wide(tx, vm, host_id)
    return (
        Invalid(
            "VM_TOO_BIG",
            f"{vm['name']} needs {vm['memory_mib']} MiB; the largest of {known} hosts has "
            f"{largest} MiB in all",
            next_step="give the VM less memory or add a larger host",
            vm=vm["name"],
            needs_mib=vm["memory_mib"],
            largest_mib=largest,
        ),
    )


async def _too_wide(tx: Tx, vm: Row, host_id: UUID | None) -> tuple[Refused, ...]:
    most = await tx.facts.most_vcpus(vm["cluster_id"], host_id)
    if most is None or vm["vcpus"] <= most:
        return ()
    where = "any host" if host_id is None else "this host"
    return (
        Invalid(
            "VM_TOO_MANY_VCPUS",
            f"{vm['name']} has {vm['vcpus']} vCPUs; {where} of its cluster may promise {most} in "
            "all, even when it is empty",
            next_step="give the VM fewer vCPUs, or allow more: "
            "`holdfast cluster edit --vcpu-overcommit`",
            vm=vm["name"],
            needs_vcpus=vm["vcpus"],
            allowed_vcpus=most,
        ),
    )

"""`holdfast vm`: virtual machines."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failures import Exit, Json, failure
from cli.nouns import vm_options, vm_parts
from cli.nouns.batch import batch
from cli.nouns.shared import VersionOption, change, cluster_id
from cli.nouns.vm_parts import NONE
from cli.render import ago, clock, lasting, print_facts, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.values import as_id

if TYPE_CHECKING:
    from cli.client import Api


app = typer.Typer(
    help="VMs: create, change, import, start, move, stop, delete.", no_args_is_help=True
)

VmName = Annotated[str, typer.Argument(metavar="VM", help="Name or id of a VM.")]
VmNames = Annotated[list[str], typer.Argument(metavar="VM...", help="Names or ids of VMs.")]


@app.command("list")
@queries
def list_(
    session: Session,
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster.")] = None,
    host: Annotated[str | None, typer.Option(help="Only those that run on this host.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as down.")] = None,
    contains: Annotated[str | None, typer.Option(help="Only names with this in them.")] = None,
    protected: Annotated[
        bool | None, typer.Option("--protected/--unprotected", help="Only those, or the others.")
    ] = None,
) -> None:
    """List VMs and where they run."""
    api = session.api
    found = api.all(
        "/vms",
        cluster_id=None if cluster is None else api.find("cluster", cluster)["id"],
        host_id=None if host is None else api.find("host", host)["id"],
        state=state,
        name_contains=contains,
        protected=protected,
    )
    if session.as_json:
        return print_json(found)
    names = {item["id"]: item["name"] for item in found}
    now = session.api.now()
    rows = [
        (
            item["name"],
            item["state"],
            item["host_name"],
            f"{item['memory_mib']} MiB",
            item["vcpus"],
            item["protected"],
            item["priority"],
            [names.get(other, other) for other in item["depends_on"]],
            _since(item, now),
        )
        for item in found
    ]
    header = ("NAME", "STATE", "HOST", "MEMORY", "CPUS", "PROTECTED", "PRIORITY", "AFTER", "UP")
    return print_table(header, rows, empty="no VMs; add one with `holdfast vm create`")


def _since(vm: Json, now: Any) -> str:
    return ago(vm["running_since"], now).removesuffix(" ago") if vm["running_since"] else "-"


@app.command()
@queries
def show(session: Session, vm: VmName) -> None:
    """Show one VM with all that it is made of."""
    found = session.api.get(f"/vms/{session.api.find('vm', vm)['id']}")
    if session.as_json:
        return print_json(found)
    names = {i: session.api.get(f"/vms/{i}")["name"] for i in found["depends_on"]}
    since, now, budget = found["running_since"], session.api.now(), found["budget_s"]
    return print_facts(
        (
            ("name", found["name"]),
            ("state", found["state"]),
            ("host", found["host_name"]),
            ("on its way to", found["migrating_to"]),
            ("also seen on", ", ".join(found["also_seen_on"]) or None),
            ("starts again with", found["starts_again_with"]),
            ("stops again at", vm_parts.told_stop(found["stops_again_at"])),
            ("running since", f"{clock(since)} ({ago(since, now)})" if since else None),
            ("ended", _ended(found, now)),
            ("paused by", found["paused"]),
            ("agent heard", found["agent_heard"]),
            ("agent silent since", vm_parts.told_silence(found["agent_silent_since"], now)),
            ("memory", f"{found['memory_mib']} MiB"),
            ("processors", found["vcpus"]),
            ("disks", [_disk(disk) for disk in found["disks"]] or None),
            ("kernel", found["boot"]["kernel"] if found["boot"] else None),
            ("network cards", [_nic(nic) for nic in found["nics"]] or None),
            ("protected", found["protected"]),
            ("priority", found["priority"]),
            ("budget", None if budget is None else lasting(budget)),
            ("restarts", f"{found['max_restart']} a host, {found['max_relocate']} other hosts"),
            ("on guest shutdown", found["on_guest_shutdown"]),
            ("on I/O error", found["on_io_error"]),
            ("on hang", vm_parts.told_hang(found)),
            ("may be stopped", vm_parts.told_may_be_stopped(found)),
            ("failback", vm_parts.told_failback(found)),
            ("ready", vm_parts.told_ready(found["ready"])),
            ("starts after", [names.get(i, i) for i in found["depends_on"]] or None),
            ("affinity", [group["name"] for group in found["affinity_groups"]] or None),
            ("rules that gave way", found["gave_way"] or None),
            ("run", found["run_state"]),
            ("generation", found["generation"]),
            ("operation", found["operation_id"]),
            ("version", found["version"]),
            ("id", found["id"]),
        )
    )


def _ended(vm: Json, now: Any) -> str | None:
    at = vm["ended_at"]
    return f"{vm['end_reason']}, {clock(at)} ({ago(at, now)})" if at else None


def _disk(disk: Json) -> str:
    words = [disk["path"], disk["format"]]
    words += [disk[name] for name in ("device", "bus") if name in disk]
    words += [name for name in ("shareable", "read_only") if disk.get(name)]
    return " ".join(words)


def _nic(nic: Json) -> str:
    bridge = nic["bridge"] or "QEMU's own NAT"
    return f"{nic['mac']} {nic['model']} on {nic['network']} ({bridge})"


@app.command()
@actions
def create(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new VM's name.")],
    memory: Annotated[int, vm_options.MemoryOption],
    vcpus: Annotated[int, vm_options.VcpusOption] = 1,
    cluster: vm_options.ClusterOption = None,
    protected: vm_options.ProtectedOption = False,
    priority: Annotated[int, vm_options.PriorityOption] = 50,
    budget: vm_options.BudgetOption = None,
    max_restart: vm_options.RestartsOption = None,
    max_relocate: vm_options.RelocationsOption = None,
    on_guest_shutdown: vm_options.ShutdownOption = None,
    on_io_error: vm_options.IoErrorOption = None,
    hang: vm_parts.HangOption = None,
    hang_after: vm_parts.HangAfterOption = None,
    may_be_stopped: vm_parts.StoppedOption = None,
    failback: vm_options.FailbackOption = None,
    home: vm_options.HomeOption = None,
    ready: vm_parts.ReadyOption = None,
    ready_within: vm_parts.ReadyWithinOption = None,
    depends_on: vm_options.DependsOption = None,
    affinity: vm_options.AffinityOption = None,
    disk: vm_options.DiskOption = None,
    nic: vm_options.NicOption = None,
    kernel: vm_options.KernelOption = None,
    initrd: vm_options.InitrdOption = None,
    cmdline: vm_options.CmdlineOption = None,
) -> None:
    """Add a VM; it is not started."""
    direct = vm_parts.boot(kernel, initrd, cmdline)
    body: Json = {"cluster_id": cluster_id(act.api, cluster), "name": name}
    body |= {"memory_mib": memory, "vcpus": vcpus, "protected": protected, "priority": priority}
    body |= vm_parts.given(
        budget_s=vm_parts.budget_s(budget),
        ready=vm_parts.ready(ready, ready_within),
        max_restart=max_restart,
        max_relocate=max_relocate,
        on_guest_shutdown=on_guest_shutdown,
        on_io_error=on_io_error,
        on_hang=hang,
        hang_after_s=hang_after,
        may_be_stopped=vm_parts.said(may_be_stopped),
        failback=failback,
        home_id=vm_parts.host_id(act.api, home),
    )
    body |= vm_parts.parts(act.api, disk, nic, depends_on, affinity)
    act.run("/vms", body if direct is None else body | {"boot": direct})


@app.command()
@actions
def edit(
    act: Act,
    vm: VmName,
    name: Annotated[str | None, typer.Option(help="Another name; only while it is down.")] = None,
    memory: Annotated[int | None, vm_options.MemoryOption] = None,
    vcpus: Annotated[int | None, vm_options.VcpusOption] = None,
    protected: Annotated[
        bool | None, typer.Option("--protected/--unprotected", help="Start it elsewhere or not.")
    ] = None,
    priority: Annotated[int | None, vm_options.PriorityOption] = None,
    budget: vm_options.BudgetOption = None,
    max_restart: vm_options.RestartsOption = None,
    max_relocate: vm_options.RelocationsOption = None,
    on_guest_shutdown: vm_options.ShutdownOption = None,
    on_io_error: vm_options.IoErrorOption = None,
    hang: vm_parts.HangOption = None,
    hang_after: vm_parts.HangAfterOption = None,
    may_be_stopped: vm_parts.StoppedOption = None,
    failback: vm_options.FailbackOption = None,
    home: vm_options.HomeOption = None,
    ready: vm_parts.ReadyOption = None,
    ready_within: vm_parts.ReadyWithinOption = None,
    depends_on: vm_options.DependsOption = None,
    affinity: vm_options.AffinityOption = None,
    disk: vm_options.DiskOption = None,
    nic: vm_options.NicOption = None,
    kernel: vm_options.KernelOption = None,
    initrd: vm_options.InitrdOption = None,
    cmdline: vm_options.CmdlineOption = None,
    version: VersionOption = None,
) -> None:
    """Change a VM; lists are given whole, and `none` empties them or takes a value away.

    What the guest is made of (memory, processors, disks, cards, kernel) it sees at its next start.
    """
    found = act.api.find("vm", vm)
    direct = vm_parts.boot(kernel, initrd, cmdline)
    wanted: Json = {"name": name, "memory_mib": memory, "vcpus": vcpus, "protected": protected}
    wanted |= {"priority": priority, "budget_s": vm_parts.budget_s(budget), "boot": direct}
    wanted |= {"max_restart": max_restart, "max_relocate": max_relocate}
    wanted |= {"on_guest_shutdown": on_guest_shutdown, "on_io_error": on_io_error}
    wanted |= {"on_hang": hang, "hang_after_s": hang_after}
    wanted |= {"may_be_stopped": vm_parts.said(may_be_stopped), "failback": failback}
    wanted |= {"home_id": vm_parts.host_id(act.api, home)}
    wanted |= vm_parts.parts(act.api, disk, nic, depends_on, affinity)
    wanted |= {"ready": vm_parts.ready(ready, ready_within)}
    emptied = [field for field, text in (("budget_s", budget), ("boot", kernel)) if text == NONE]
    emptied += ["home_id"] if home == NONE else []
    emptied += ["ready"] if ready == vm_parts.RUNNING else []
    change(act, "/vms", found, wanted, version, emptied)


@app.command()
@actions
def delete(act: Act, vm: VmName, version: VersionOption = None) -> None:
    """Delete a VM that is down; its disks stay where they are."""
    found = act.api.find("vm", vm)
    act.remove(f"/vms/{found['id']}", version or found["version"])


@app.command("import")
@actions
def import_(
    act: Act,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name or id of the guest's host.")],
    guest: Annotated[
        str, typer.Argument(metavar="GUEST", help="The guest's UUID, or its name while it runs.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call the VM; else as its host does.")
    ] = None,
    protected: Annotated[
        bool, typer.Option("--protected", help="Start it elsewhere when its host is proven dead.")
    ] = False,
    priority: Annotated[int, vm_options.PriorityOption] = 50,
) -> None:
    """Take over a guest that a host had before the engine knew it; it runs on untouched."""
    found = act.api.find("host", host)
    body: Json = {"host_id": found["id"], "guest_id": _guest_id(act.api, found, guest)}
    body |= {"protected": protected, "priority": priority}
    act.run("/vms/import", body if name is None else body | {"name": name})


def _guest_id(api: "Api", host: Json, guest: str) -> str:
    known = as_id(guest)
    if known is not None:
        return known
    listed = api.get(f"/hosts/{host['id']}/foreign-guests")["guests"]
    ids = [item["guest_id"] for item in listed if item["name"] == guest]
    if len(ids) == 1:
        return str(ids[0])
    raise failure(
        Exit.NOT_FOUND,
        "GUEST_NOT_FOUND",
        f"{host['name']} runs no foreign guest named {guest}",
        next_step="name it by its UUID (`virsh domuuid`): a guest that is down is in no list",
        guest=guest,
    )


@app.command()
@actions
def start(
    act: Act,
    vms: VmNames,
    host: Annotated[
        str | None, typer.Option(help="Name or id of the host; else the engine chooses.")
    ] = None,
) -> None:
    """Start a VM, or many in one batch.

    Example: holdfast vm start db web mail
    """
    host_id = None if host is None else act.api.find("host", host)["id"]
    _for_each(act, "start", vms, {"host_id": host_id})


@app.command()
@actions
def migrate(
    act: Act,
    vms: VmNames,
    to: Annotated[
        str | None, typer.Option(help="Name or id of the host; else the engine chooses.")
    ] = None,
) -> None:
    """Move a running VM to another host without stopping it, or many in one batch.

    Example: holdfast vm migrate db --to host-2
    """
    host_id = None if to is None else act.api.find("host", to)["id"]
    _for_each(act, "migrate", vms, {"host_id": host_id})


@app.command()
@actions
def stop(
    act: Act,
    vms: VmNames,
    force: Annotated[
        bool, typer.Option("--force", help="Hard and at once; the guest is not asked.")
    ] = False,
) -> None:
    """Stop a VM, or many in one batch: gracefully first, hard after the cluster's time limit."""
    _for_each(act, "stop", vms, {"force": force})


@app.command("end-copy")
@actions
def end_copy(
    act: Act,
    vm: VmName,
    host: Annotated[str, typer.Option(help="Name or id of the host where it should not run.")],
    last_copy: Annotated[
        bool, typer.Option("--last-copy", help="Also when it is the only one: the VM is then down.")
    ] = False,
) -> None:
    """End a copy of a VM on a host where it should not run, such as one that was started by hand.

    Example: holdfast vm end-copy db --host host-2
    """
    found = act.api.find("vm", vm)
    body = {"host_id": act.api.find("host", host)["id"], "last_copy": last_copy}
    act.run(f"/vms/{found['id']}/actions/end-copy", body)


@app.command("adopt-copy")
@actions
def adopt_copy(
    act: Act,
    vm: VmName,
    host: Annotated[str, typer.Option(help="Name or id of the host on which it really runs.")],
) -> None:
    """Make the copy of a VM that somebody moved to another host the VM's run.

    Example: holdfast vm adopt-copy db --host host-2
    """
    found = act.api.find("vm", vm)
    body = {"host_id": act.api.find("host", host)["id"]}
    act.run(f"/vms/{found['id']}/actions/adopt-copy", body)


def _for_each(act: Act, verb: str, vms: list[str], how: dict[str, Any]) -> None:
    ids = [act.api.find("vm", name)["id"] for name in vms]
    if len(ids) == 1:
        act.run(f"/vms/{ids[0]}/actions/{verb}", how)
        return
    items = [{"kind": f"vm.{verb}", "params": {"vm_id": vm_id} | how} for vm_id in ids]
    act.run("/batches", batch(items))

"""`holdfast vm`: virtual machines."""

from typing import Annotated, Any

import typer

from cli.failures import Json
from cli.nouns.shared import cluster_id
from cli.render import ago, clock, print_facts, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.values import size_mib

app = typer.Typer(help="VMs: create, start, stop.", no_args_is_help=True)

VmName = Annotated[str, typer.Argument(metavar="VM", help="Name or id of a VM.")]
DISK_WORDS = ("raw", "qcow2", "shareable")


@app.command("list")
@queries
def list_(session: Session) -> None:
    """List VMs and where they run."""
    found = session.api.get("/vms")
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
    """Show one VM."""
    found = session.api.find("vm", vm)
    if session.as_json:
        return print_json(found)
    names: dict[str, str] = {}
    if found["depends_on"]:
        names = {item["id"]: item["name"] for item in session.api.get("/vms")}
    since, now = found["running_since"], session.api.now()
    return print_facts(
        (
            ("name", found["name"]),
            ("state", found["state"]),
            ("host", found["host_name"]),
            ("running since", f"{clock(since)} ({ago(since, now)})" if since else None),
            ("memory", f"{found['memory_mib']} MiB"),
            ("processors", found["vcpus"]),
            ("protected", found["protected"]),
            ("priority", found["priority"]),
            ("starts after", [names.get(i, i) for i in found["depends_on"]] or None),
            ("run", found["run_state"]),
            ("generation", found["generation"]),
            ("operation", found["operation_id"]),
            ("id", found["id"]),
        )
    )


@app.command()
@actions
def create(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new VM's name.")],
    memory: Annotated[
        int, typer.Option(parser=size_mib, metavar="SIZE", help="Memory: 512 (MiB), 512M or 2G.")
    ],
    vcpus: Annotated[int, typer.Option(min=1, max=512, help="Processors.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Name or id of its cluster; needed where there are several.")
    ] = None,
    protected: Annotated[
        bool, typer.Option("--protected", help="Start it elsewhere when its host is proven dead.")
    ] = False,
    priority: Annotated[
        int, typer.Option(min=0, max=100, help="Order of restarts: 100 is first.")
    ] = 50,
    depends_on: Annotated[
        list[str] | None, typer.Option(metavar="VM", help="Start it after this VM; repeatable.")
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[,qcow2][,shareable]", help="A disk, at this path on every host."
        ),
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="Boot this kernel directly.")] = None,
    initrd: Annotated[str | None, typer.Option(help="Its initial RAM disk.")] = None,
    cmdline: Annotated[str | None, typer.Option(help="Its command line.")] = None,
) -> None:
    """Add a VM; it is not started."""
    boot = _boot(kernel, initrd, cmdline)
    body: Json = {
        "cluster_id": cluster_id(act.api, cluster),
        "name": name,
        "memory_mib": memory,
        "vcpus": vcpus,
        "protected": protected,
        "priority": priority,
        "depends_on": [act.api.find("vm", other)["id"] for other in depends_on or ()],
        "disks": [_disk(text) for text in disk or ()],
    }
    act.run("/vms", body if boot is None else body | {"boot": boot})


def _disk(text: str) -> Json:
    path, *words = text.split(",")
    if unknown := [word for word in words if word not in DISK_WORDS]:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: after a disk's path come only {', '.join(DISK_WORDS)}",
            param_hint="--disk",
        )
    form = "qcow2" if "qcow2" in words else "raw"
    return {"path": path, "format": form, "shareable": "shareable" in words}


def _boot(kernel: str | None, initrd: str | None, cmdline: str | None) -> Json | None:
    if kernel is None:
        if initrd is not None or cmdline is not None:
            raise typer.BadParameter("--initrd and --cmdline need --kernel", param_hint="--kernel")
        return None
    return {"kernel": kernel, "initrd": initrd, "cmdline": cmdline or ""}


@app.command()
@actions
def start(
    act: Act,
    vm: VmName,
    host: Annotated[
        str | None, typer.Option(help="Name or id of the host; else the engine chooses.")
    ] = None,
) -> None:
    """Start a VM."""
    found = act.api.find("vm", vm)
    host_id = None if host is None else act.api.find("host", host)["id"]
    act.run(f"/vms/{found['id']}/actions/start", {"host_id": host_id})


@app.command()
@actions
def stop(
    act: Act,
    vm: VmName,
    force: Annotated[
        bool, typer.Option("--force", help="Hard and at once; the guest is not asked.")
    ] = False,
) -> None:
    """Stop a VM: gracefully first, hard after the cluster's time limit."""
    act.run(f"/vms/{act.api.find('vm', vm)['id']}/actions/stop", {"force": force})

"""`holdfast host`: the machines that run VMs."""

from typing import Annotated

import typer

from cli.failures import Json
from cli.nouns.shared import cluster_id
from cli.render import (
    ago,
    clock,
    lasting,
    precise,
    print_facts,
    print_json,
    print_line,
    print_table,
)
from cli.session import Act, Session, actions, queries

app = typer.Typer(help="Hosts: machines that run VMs.", no_args_is_help=True)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="Name or id of a host.")]


@app.command("list")
@queries
def list_(session: Session) -> None:
    """List hosts with their state and load."""
    found = session.api.get("/hosts")
    if session.as_json:
        return print_json(found)
    now = session.api.now()
    rows = [
        (
            item["name"],
            item["state"],
            ago(item["last_answer_at"], now),
            item["vms"],
            f"{item['memory_reserved_mib']}/{item['memory_mib']} MiB",
            item["epoch"],
            item["state_reason"],
        )
        for item in found
    ]
    header = ("NAME", "STATE", "LAST ANSWER", "VMS", "MEMORY", "EPOCH", "WHY")
    return print_table(header, rows, empty="no hosts; add one with `holdfast host add`")


@app.command()
@queries
def show(session: Session, host: HostName) -> None:
    """Show one host with its fence devices and VMs."""
    found = session.api.find("host", host)
    if session.as_json:
        return print_json(found)
    now = session.api.now()
    print_facts(
        (
            ("name", found["name"]),
            ("state", found["state"]),
            ("why", found["state_reason"] or None),
            ("since", f"{clock(found['state_since'])} ({ago(found['state_since'], now)})"),
            ("last answer", ago(found["last_answer_at"], now)),
            ("address", found["uri"]),
            ("memory", f"{found['memory_reserved_mib']} of {found['memory_mib']} MiB reserved"),
            ("processors", found["cpus"]),
            ("epoch", found["epoch"]),
            ("open incident", found["open_incident_id"]),
            ("id", found["id"]),
        )
    )
    _show_fences(session.api.get("/fence-devices", host_id=found["id"]))
    return _show_vms([vm for vm in session.api.get("/vms") if vm["host_id"] == found["id"]])


def _show_fences(devices: list[Json]) -> None:
    print_line()
    if not devices:
        return print_line("no fence device: its death cannot be proven (`holdfast fence add`)")
    rows = [(d["name"], d["agent"], d["last_reading"], clock(d["last_read_at"])) for d in devices]
    return print_table(("FENCE DEVICE", "AGENT", "LAST READING", "READ AT"), rows)


def _show_vms(vms: list[Json]) -> None:
    print_line()
    if not vms:
        return print_line("no VMs")
    rows = [(vm["name"], vm["state"], f"{vm['memory_mib']} MiB", vm["protected"]) for vm in vms]
    return print_table(("VM", "STATE", "MEMORY", "PROTECTED"), rows)


@app.command()
@actions
def add(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new host's name.")],
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="libvirt's address, such as qemu+tls://h1/system.")
    ],
    cluster: Annotated[
        str | None, typer.Option(help="Name or id of its cluster; needed where there are several.")
    ] = None,
    own_host: Annotated[
        bool, typer.Option("--own-host", help="The engine itself runs there: never fence it.")
    ] = False,
) -> None:
    """Add a host and bring it into service."""
    body = {
        "cluster_id": cluster_id(act.api, cluster),
        "name": name,
        "uri": uri,
        "own_host": own_host,
    }
    act.run("/hosts", body)


@app.command()
@actions
def activate(act: Act, host: HostName) -> None:
    """Power a host on, settle its old copies, return it to `up`."""
    act.run(f"/hosts/{act.api.find('host', host)['id']}/actions/activate", {})


@app.command()
@queries
def samples(
    session: Session,
    host: HostName,
    minutes: Annotated[int, typer.Option(min=1, max=60, help="How far back.")] = 60,
    limit: Annotated[int, typer.Option(min=1, max=1800, help="At most so many.")] = 20,
) -> None:
    """Show what a host's polls said, newest first."""
    found_id = session.api.find("host", host)["id"]
    found = session.api.get(f"/hosts/{found_id}/samples", minutes=minutes, limit=limit)
    if session.as_json:
        return print_json(found)
    rows = [
        (
            precise(item["at"]),
            lasting(item["took_s"]),
            f"{item['memory_free_mib']} of {item['memory_total_mib']} MiB",
            item["cpus"],
            len(item["guests"]),
        )
        for item in found
    ]
    header = ("AT", "POLL TOOK", "MEMORY FREE", "PROCESSORS", "GUESTS")
    return print_table(header, rows, empty="no answered polls in that time")

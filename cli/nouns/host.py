"""`holdfast host`: the machines that run VMs."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from cli.failures import Json
from cli.nouns import ssh
from cli.nouns.devices import tested
from cli.nouns.forecast import tell_forecast
from cli.nouns.shared import VersionOption, change, cluster_id
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
from cli.terminal import say
from domain.autostart import next_step, told

app = typer.Typer(help="Hosts: machines that run VMs.", no_args_is_help=True)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="Name or id of a host.")]

Rack = Annotated[
    str | None,
    typer.Option(help="The rack it stands in: what fails together. Empty: none is told."),
]
Site = Annotated[
    str | None, typer.Option(help="The site of that rack; racks of two sites may be namesakes.")
]


class PlannedVms(StrEnum):
    """What becomes of a host's VMs (as `domain.planned.PlannedVms`)."""

    MIGRATE = "migrate"
    FAILOVER = "failover"
    FREEZE = "freeze"
    CONDITIONAL = "conditional"


VmsOption = Annotated[
    PlannedVms,
    typer.Option(
        help="Its VMs: moved away live; shut down and started on other hosts; shut down until it "
        "is back; or freeze for a reboot and failover for a shutdown."
    ),
]


@app.command("list")
@queries
def list_(
    session: Session,
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as up.")] = None,
    contains: Annotated[str | None, typer.Option(help="Only names with this in them.")] = None,
) -> None:
    """List hosts with their state and load.

    POWER LOSS blocks: when the host loses its supply no fence device can prove it off, so that its
    VMs wait for a person.
    """
    in_cluster = None if cluster is None else session.api.find("cluster", cluster)["id"]
    found = session.api.all("/hosts", cluster_id=in_cluster, state=state, name_contains=contains)
    if session.as_json:
        return print_json(found)
    now = session.api.now()
    rows = [
        (
            item["name"],
            _state(item),
            ago(item["last_answer_at"], now),
            item["vms"],
            f"{item['memory_reserved_mib']}/{item['memory_allowed_mib']} MiB",
            _vcpus(item, "{}/{}"),
            item["epoch"],
            "blocks" if item["fencing"]["blocks_on_power_loss"] else "proven",
            item["state_reason"],
        )
        for item in found
    ]
    header = (
        "NAME",
        "STATE",
        "LAST ANSWER",
        "VMS",
        "MEMORY",
        "VCPUS",
        "EPOCH",
        "POWER LOSS",
        "WHY",
    )
    return print_table(header, rows, empty="no hosts; add one with `holdfast host add`")


def _memory(host: Json) -> str:
    """What is promised of what may be, and what there is where that is less."""
    has, most = host["memory_mib"], host["memory_allowed_mib"]
    said = f"{host['memory_reserved_mib']} of {most} MiB reserved"
    return said if most == has else f"{said}, it has {has}"


def _vcpus(host: Json, form: str) -> str:
    """How many are promised, and of how many where the cluster has a limit."""
    most = host["vcpus_allowed"]
    held = str(host["vcpus_reserved"])
    return held if most is None else form.format(held, most)


def _state(host: Json) -> str:
    """With its power, where the engine switches that."""
    power = host["power"]
    return f"{host['state']} (power {power.replace('_', ' ')})" if power else str(host["state"])


@app.command()
@queries
def show(session: Session, host: HostName) -> None:
    """Show one host with its monitors, fence devices and VMs."""
    found = session.api.find("host", host)
    if session.as_json:
        return print_json(found)
    now = session.api.now()
    print_facts(
        (
            ("name", found["name"]),
            ("state", found["state"]),
            ("power", (found["power"] or "").replace("_", " ") or None),
            ("why", found["state_reason"] or None),
            ("warning", _autostart(found)),
            ("since", f"{clock(found['state_since'])} ({ago(found['state_since'], now)})"),
            ("last answer", ago(found["last_answer_at"], now)),
            ("address", found["uri"]),
            ("rack", found["rack"] or None),
            ("site", found["site"] or None),
            ("memory", _memory(found)),
            ("processors", found["cpus"]),
            ("vCPUs", f"{_vcpus(found, '{} of {}')} reserved"),
            ("epoch", found["epoch"]),
            *ssh.shown(session.api.get(f"/hosts/{found['id']}/ssh"), now),
            ("open incident", found["open_incident_id"]),
            ("fence takes", _fence_takes(found["fencing"])),
            ("on power loss", _on_power_loss(found["fencing"])),
            ("version", found["version"]),
            ("id", found["id"]),
        )
    )
    _show_eyes(session.api.get(f"/hosts/{found['id']}/monitors"), now)
    _show_fences(session.api.all("/fence-devices", host_id=found["id"]))
    return _show_vms(session.api.all("/vms", host_id=found["id"]))


def _autostart(found: Json) -> str | None:
    name, names = found["name"], tuple(found["autostart"])
    return f"{told(name, names)}; next, {next_step(name, names)}" if names else None


def _fence_takes(fencing: Json) -> str | None:
    if not fencing["levels"]:
        return None
    levels = [f"level {each['level']} {lasting(each['budget_s'])}" for each in fencing["levels"]]
    whole, limit = lasting(fencing["budget_s"]), lasting(fencing["limit_s"])
    silence = fencing.get("silence_s")
    after = f", after at most {lasting(silence)} of silence" if silence else ""
    return f"at most {whole} of {limit} ({', '.join(levels)}){after}"


def _on_power_loss(fencing: Json) -> str:
    if not fencing["blocks_on_power_loss"]:
        return "proven off by a device with a supply of its own"
    return "blocks: no device with a supply of its own proves it off, a person has to"


def _show_eyes(eyes: list[Json], now: datetime) -> None:
    print_line()
    if not eyes:
        return print_line("no monitor watches it: start one (`holdfast monitor`)")
    rows = [
        (
            eye["monitor"],
            eye["machine"],
            eye["state"],
            eye["verdict"] or "none yet",
            ago(eye["voted_at"], now),
            clock(eye["since"]),
        )
        for eye in eyes
    ]
    return print_table(("MONITOR", "MACHINE", "IS", "LAST VOTE", "AT", "SINCE"), rows)


def _show_fences(devices: list[Json]) -> None:
    print_line()
    if not devices:
        return print_line("no fence device: its death cannot be proven (`holdfast fence add`)")
    rows = [
        (d["level"], d["name"], d["agent"], d["last_reading"], clock(d["last_read_at"]), tested(d))
        for d in sorted(devices, key=lambda d: (d["level"], d["name"]))
    ]
    return print_table(("LEVEL", "FENCE DEVICE", "AGENT", "LAST READING", "READ AT", "TEST"), rows)


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
    rack: Rack = None,
    site: Site = None,
) -> None:
    """Add a host and bring it into service."""
    place = {"rack": rack, "site": site}
    body = {
        "cluster_id": cluster_id(act.api, cluster),
        "name": name,
        "uri": uri,
        "own_host": own_host,
    }
    act.run("/hosts", body | {name: value for name, value in place.items() if value})


@app.command()
@queries
def forecast(session: Session, host: HostName) -> None:
    """Say what would become of a host's VMs if it died now."""
    found = session.api.get(f"/hosts/{session.api.find('host', host)['id']}/forecast")
    if session.as_json:
        return print_json(found)
    return tell_forecast(found)


@app.command()
@actions
def activate(act: Act, host: HostName) -> None:
    """Power a host on, settle its old copies, return it to `up`."""
    act.run(f"/hosts/{act.api.find('host', host)['id']}/actions/activate", {})


@app.command("restart-libvirtd")
@actions
def restart_libvirtd(act: Act, host: HostName) -> None:
    """Restart libvirtd on a host over SSH; its guests run on."""
    act.run(f"/hosts/{act.api.find('host', host)['id']}/actions/restart-libvirtd", {})


@app.command()
@actions
def maintain(act: Act, host: HostName) -> None:
    """Move its VMs elsewhere, a few at a time, then take it out of service; cancel to keep it."""
    act.run(f"/hosts/{act.api.find('host', host)['id']}/actions/maintain", {})


@app.command()
@actions
def shutdown(act: Act, host: HostName, vms: VmsOption = PlannedVms.CONDITIONAL) -> None:
    """See to its VMs, then switch its power off; `host activate` brings it back."""
    found = act.api.find("host", host)
    act.run(f"/hosts/{found['id']}/actions/shutdown", {"vms": vms.value})


@app.command()
@actions
def reboot(act: Act, host: HostName, vms: VmsOption = PlannedVms.CONDITIONAL) -> None:
    """See to its VMs, switch its power off and on, and bring it back into service."""
    found = act.api.find("host", host)
    act.run(f"/hosts/{found['id']}/actions/reboot", {"vms": vms.value})


@app.command("confirm-dead")
@actions
def confirm_dead(
    act: Act,
    host: HostName,
    how: Annotated[
        str, typer.Option("--seen", help="How you saw that it is off; it stands on the proof.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask no more: I have gone and looked.")
    ] = False,
) -> None:
    """Say that a silent host is off, where no controller can prove it. Wrong, it costs disks."""
    found = act.api.find("host", host)
    if not yes:
        say(f"{found['name']}'s VMs will be started elsewhere. If it runs on, two copies of each")
        say("write to the same disks. Its power must be off, and stay off.")
        typer.confirm(f"Is the power of {found['name']} off", abort=True, err=True)
    act.run(f"/hosts/{found['id']}/actions/confirm-dead", {"reason": how})


@app.command()
@actions
def edit(
    act: Act,
    host: HostName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    uri: Annotated[
        str | None,
        typer.Option(help="Another address; only out of service and without VMs of ours."),
    ] = None,
    own_host: Annotated[
        bool | None,
        typer.Option("--own-host/--not-own-host", help="The engine itself runs there or not."),
    ] = None,
    rack: Rack = None,
    site: Site = None,
    ssh_user: ssh.SshUser = None,
    ssh_port: ssh.SshPort = None,
    ssh_key_file: ssh.SshKeyFile = None,
    ssh_host_key: ssh.SshHostKey = None,
    no_ssh: ssh.NoSsh = False,
    version: VersionOption = None,
) -> None:
    """Change a host; the machine itself is left as it is."""
    wanted = {"name": name, "uri": uri, "own_host": own_host, "rack": rack, "site": site}
    access = ssh.access(ssh_user, ssh_port, ssh_key_file, ssh_host_key)
    emptied = ("ssh",) if no_ssh else ()
    found = act.api.find("host", host)
    change(act, "/hosts", found, wanted | {"ssh": access or None}, version, emptied)


@app.command()
@actions
def remove(act: Act, host: HostName, version: VersionOption = None) -> None:
    """Remove a host that is out of service, with its fence devices; its history stays."""
    found = act.api.find("host", host)
    act.remove(f"/hosts/{found['id']}", version or found["version"])


@app.command("foreign-guests")
@queries
def foreign_guests(session: Session, host: HostName) -> None:
    """List guests that run on a host and are none of ours; nothing touches them."""
    found_id = session.api.find("host", host)["id"]
    found = session.api.get(f"/hosts/{found_id}/foreign-guests")
    if session.as_json:
        return print_json(found)
    seen = "it has not answered within the last hour"
    if found["at"] is not None:
        seen = f"none ran there {ago(found['at'], session.api.now())}"
    rows = [
        (guest["name"], guest["state"], f"{guest['memory_mib']} MiB", guest["guest_id"])
        for guest in found["guests"]
    ]
    return print_table(("NAME", "STATE", "MEMORY", "ID"), rows, empty=seen)


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

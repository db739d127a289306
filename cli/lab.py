"""`holdfast lab`: build a data centre in a box, break it, take it down.

In the folder of a fleet without hardware the same commands break that one; only another `--name`
still means a real lab there.

The lab's code is imported inside the commands: `holdfast vm list` shall not wait for it.
Exit codes: 0 done, 1 refused or failed (standard error says why and what to do next), 2 misuse.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from domain.errors import Conflict, EngineError

if TYPE_CHECKING:
    from cli.lab_fleet import FleetLab
    from lab.lab import HostStatus, Lab, LabStatus
    from simulator.fleet.control import FleetStatus
    from simulator.fleet.control import HostStatus as FleetHostStatus

    AnyLab = Lab | FleetLab
    AnyStatus = LabStatus | FleetStatus
    AnyHostStatus = HostStatus | FleetHostStatus

app = typer.Typer(
    help="A data centre in a box: real libvirtd, QEMU, IPMI and Redfish (needs root), or the fleet "
    "of `holdfast up --fleet`.",
    no_args_is_help=True,
)


class Mode(StrEnum):
    """How a power controller behaves (as `lab.bmc_control.BmcMode`, without importing it)."""

    OK = "ok"
    DEAD = "dead"
    LYING = "lying"
    HANGING = "hanging"


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


LAB = "lab"
NAMES_SHOWN = 12
"""Guests of one host that the table names; the others are counted."""

Name = Annotated[str, typer.Option("--name", help="Which lab.", metavar="LAB")]
HostName = Annotated[str, typer.Argument(help="A host of the lab, such as h1.", metavar="HOST")]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the lab's refusals into two lines and exit code 1."""
    try:
        yield
    except EngineError as error:
        sys.stderr.write(f"{error.code}: {error.detail}\n")
        if error.next_step:
            sys.stderr.write(f"next: {error.next_step}\n")
        raise typer.Exit(1) from error


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _on_lab(name: str, action: "Callable[[AnyLab], None]", done: str) -> None:
    with _explained():
        action(_lab(name))
    _say(done)


def _lab(name: str) -> "AnyLab":
    """The fleet of this folder, or a real lab; Refused where none can be."""
    from lab.lab import Lab, default_var
    from simulator.fleet.place import has_fleet

    if name == LAB and has_fleet(default_var()):
        from cli.lab_fleet import FleetLab

        return FleetLab(default_var())
    from lab import requirements

    requirements.require()
    return Lab(name, say=_say)


@app.command()
def up(
    hosts: Annotated[int | None, typer.Option(min=1, max=200, help="How many; 3 if new.")] = None,
    name: Name = LAB,
    k: Annotated[
        int | None, typer.Option("--k", min=0, max=255, help="Network 10.77.K.0/24; 0 if new.")
    ] = None,
) -> None:
    """Build the lab, or complete it; running it again is harmless."""
    with _explained():
        from lab.lab import Lab, default_var
        from simulator.fleet.place import has_fleet

        if name == LAB and has_fleet(default_var()):
            raise Conflict(
                "LAB_IS_FLEET",
                f"{default_var()} is the folder of a fleet, which is up with its engine",
                next_step="give the lab a --name, or name another folder in HOLDFAST_VAR",
            )
        Lab(name, k=k, hosts=hosts, say=_say).up()
    _say(f"lab {name} is up; `holdfast lab status` shows it")


@app.command()
def down(name: Name = LAB) -> None:
    """Remove the lab with all that belongs to it; running it again is harmless."""
    _on_lab(name, lambda lab: lab.down(), f"lab {name} is down")


@app.command()
def status(
    name: Name = LAB,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
) -> None:
    """Show every host: power, link, libvirt, power controller, guests."""
    with _explained():
        found = _lab(name).status()
    if output is Output.JSON:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        _print_table(found)


def _print_table(found: "AnyStatus") -> None:
    rows: list[tuple[str, ...]] = [("HOST", "POWER", "LINK", "LIBVIRT", "BMC", "GUESTS", "URI")]
    rows += [_row(host) for host in found.hosts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"lab {found.name}, network {found.network}, folder {found.folder}")
    for row in rows:
        print(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        )


def _row(host: "AnyHostStatus") -> tuple[str, ...]:
    return (
        host.name,
        "on" if host.power else "off",
        "up" if host.link else "down",
        host.libvirt,
        _controllers(host),
        _guests(host.guests),
        host.uri,
    )


def _controllers(host: "AnyHostStatus") -> str:
    redfish = getattr(host, "redfish", "absent")  # a fleet's hosts have none
    return host.bmc if redfish == "absent" else f"{host.bmc}, redfish {redfish}"


def _guests(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    shown = " ".join(names[:NAMES_SHOWN]) or "-"
    return f"{shown} +{more}" if more > 0 else shown


@app.command()
def crash(host: HostName, name: Name = LAB) -> None:
    """Cut a host's power, silently: no peer is told."""
    _on_lab(name, lambda lab: lab.crash(host), f"{host} has no power")


@app.command()
def isolate(host: HostName, name: Name = LAB) -> None:
    """Pull a host's network cable; its guests run on."""
    _on_lab(name, lambda lab: lab.isolate(host), f"{host} is cut off, its guests run on")


@app.command()
def heal(host: HostName, name: Name = LAB) -> None:
    """Undo `isolate` and `hang`."""
    _on_lab(name, lambda lab: lab.heal(host), f"{host} has its network back")


@app.command()
def hang(host: HostName, name: Name = LAB) -> None:
    """Freeze a host's libvirtd; its guests run on."""
    _on_lab(name, lambda lab: lab.hang(host), f"libvirtd of {host} is frozen, its guests run on")


@app.command()
def unhang(host: HostName, name: Name = LAB) -> None:
    """Let a frozen libvirtd go on."""
    _on_lab(name, lambda lab: lab.unhang(host), f"libvirtd of {host} goes on")


@app.command()
def power_on(host: HostName, name: Name = LAB) -> None:
    """Switch a host on and plug its cable in; it boots in the background."""
    _on_lab(name, lambda lab: lab.power_on(host), f"{host} boots")


@app.command()
def bmc(host: HostName, mode: Mode, name: Name = LAB) -> None:
    """Change how a host's power controller (IPMI) behaves."""
    _on_lab(
        name, lambda lab: lab.bmc(host, mode.value), f"the power controller of {host}: {mode.value}"
    )


@app.command()
def redfish(host: HostName, mode: Mode, name: Name = LAB) -> None:
    """Change how a host's Redfish controller behaves; the first time, it gets one."""
    _on_lab(
        name,
        lambda lab: lab.redfish(host, mode.value),
        f"the Redfish controller of {host}: {mode.value}",
    )

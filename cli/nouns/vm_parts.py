"""What the commands on VMs take apart: disks, network cards, other VMs, affinity groups.

The word `none` empties a list or takes a value away; a VM that is called so is named by its id.
"""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Json
from cli.render import ago, clock
from cli.values import duration_s

if TYPE_CHECKING:
    from cli.client import Api

NONE = "none"
RUNNING = "running"
FORMATS = ("raw", "qcow2")
BUSES = ("virtio", "scsi", "sata", "ide")
FLAGS = {"shareable": "shareable", "readonly": "read_only"}
DISK_WORDS = (*FORMATS, *BUSES, *FLAGS, "cdrom")
NIC_MODELS = ("virtio", "e1000e", "e1000", "rtl8139")
DISK_METAVAR = "PATH[,qcow2][,shareable][,readonly][,cdrom][,virtio|scsi|sata|ide]"
NIC_METAVAR = "NETWORK[,MODEL][,mac=ADDRESS]"


class OnHang(StrEnum):
    """What becomes of a VM whose guest agent has fallen silent."""

    OFF = "off"
    REPORT = "report"
    RESTART = "restart"


HangOption = Annotated[
    OnHang | None,
    typer.Option("--hang", help="Of a VM whose guest agent answered and has fallen silent."),
]
HangAfterOption = Annotated[
    int | None,
    typer.Option("--hang-after", min=15, metavar="SECONDS", help="So long a silence is a hang."),
]


def given(**values: object) -> Json:
    """What of these was said."""
    return {name: value for name, value in values.items() if value is not None}


def disk(text: str) -> Json:
    """A disk of `/path,qcow2,shareable`; typer.BadParameter for a word that is none of a disk's."""
    path, *words = text.split(",")
    if unknown := [word for word in words if word not in DISK_WORDS]:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: after a disk's path come only {', '.join(DISK_WORDS)}",
            param_hint="--disk",
        )
    found: Json = {"path": path, "format": "qcow2" if "qcow2" in words else "raw"}
    found["shareable"] = "shareable" in words
    if "readonly" in words:
        found["read_only"] = True
    if "cdrom" in words:
        found |= {"device": "cdrom", "bus": "sata"}
    if buses := [bus for bus in BUSES if bus in words]:
        found["bus"] = buses[-1]
    return found


def nic(api: "Api", text: str) -> Json:
    """A card of `lan,e1000,mac=52:54:00:12:34:56`; typer.BadParameter for anything else."""
    network, *words = text.split(",")
    found: Json = {}
    for word in words:
        if word.startswith("mac="):
            found["mac"] = word.removeprefix("mac=")
        elif word in NIC_MODELS:
            found["model"] = word
        else:
            raise typer.BadParameter(
                f"{word}: after a card's network come mac=ADDRESS and {', '.join(NIC_MODELS)}",
                param_hint="--nic",
            )
    return {"network_id": api.find("network", network)["id"]} | found


def boot(kernel: str | None, initrd: str | None, cmdline: str | None) -> Json | None:
    """What to boot directly, or None for the first disk."""
    if kernel is None or kernel == NONE:
        if initrd is not None or cmdline is not None:
            raise typer.BadParameter("--initrd and --cmdline need --kernel", param_hint="--kernel")
        return None
    return {"kernel": kernel, "initrd": initrd, "cmdline": cmdline or ""}


def budget_s(text: str | None) -> int | None:
    """Whole seconds of a duration, at least one; None for `none`."""
    return None if text is None or text == NONE else max(1, round(duration_s(text)))


def parts(
    api: "Api",
    disks: list[str] | None,
    nics: list[str] | None,
    depends_on: list[str] | None,
    groups: list[str] | None,
) -> Json:
    """The lists that were given, as the API takes them; one that was not is left out."""
    found: Json = {}
    if disks:
        found["disks"] = [disk(text) for text in _some(disks)]
    if nics:
        found["nics"] = [nic(api, text) for text in _some(nics)]
    if depends_on:
        found["depends_on"] = [api.find("vm", other)["id"] for other in _some(depends_on)]
    if groups:
        ids = [api.find("affinity group", group)["id"] for group in _some(groups)]
        found["affinity_group_ids"] = ids
    return found


def _some(given: list[str]) -> list[str]:
    return [] if given == [NONE] else given


READY_METAVAR = "running|agent|delay:DURATION|tcp:HOST:PORT"

ReadyOption = Annotated[
    str | None,
    typer.Option(
        metavar=READY_METAVAR,
        help="When those that depend on it start, in a recovery: once it runs, or that holds.",
    ),
]
ReadyWithinOption = Annotated[
    float | None,
    typer.Option(
        parser=duration_s, metavar="DURATION", help="After so long they start all the same; 2m."
    ),
]


def ready(text: str | None, within: float | None) -> Json | None:
    """A rule of `agent`, `delay:30s` or `tcp:db:5432`; None where none is given or it is `running`.

    typer.BadParameter for anything else.
    """
    if text is None or text == RUNNING:
        return None
    kind, _, rest = text.partition(":")
    found: Json = {"when": kind}
    if kind == "delay" and rest:
        found["delay_s"] = duration_s(rest)
    elif kind == "tcp" and rest.rpartition(":")[2].isdigit():
        host, _, port = rest.rpartition(":")
        found |= {"host": host, "port": int(port)}
    elif text != "agent":
        raise typer.BadParameter(f"{text}: write {READY_METAVAR}", param_hint="--ready")
    return found if within is None else found | {"limit_s": within}


def told_ready(rule: Json | None) -> str:
    """A rule as it is written on the command line."""
    if rule is None:
        return RUNNING
    if rule["when"] == "delay":
        return f"delay:{rule['delay_s']:g}s"
    where = f"tcp:{rule['host']}:{rule['port']}" if rule["when"] == "tcp" else rule["when"]
    return f"{where}, within {rule['limit_s']:g} s"


def told_hang(vm: Json) -> str:
    """What becomes of it when it hangs."""
    after = f" after {vm['hang_after_s']} s of silence" if vm["on_hang"] != OnHang.OFF else ""
    return f"{vm['on_hang']}{after}"


def told_silence(since: str | None, now: datetime) -> str | None:
    """Since when its guest agent is silent, if it is."""
    return f"{clock(since)} ({ago(since, now)})" if since else None


class YesNo(StrEnum):
    """An answer."""

    YES = "yes"
    NO = "no"


StoppedOption = Annotated[
    YesNo | None,
    typer.Option(
        "--may-be-stopped-for-others",
        help="For one of higher priority, where its cluster makes room (yes unless told).",
    ),
]


def said(answer: YesNo | None) -> bool | None:
    """An answer as the API has it."""
    return None if answer is None else answer is YesNo.YES


def told_may_be_stopped(vm: Json) -> str:
    """Whether a VM may be stopped for others, for people."""
    allowed = vm["may_be_stopped"]
    return "for others, where its cluster makes room" if allowed else "not for others"


def told_stop(at: str | None) -> str | None:
    """When a stop for another VM that failed half way is tried again, for people."""
    return f"{clock(at)}, to make room for another VM" if at else None


def host_id(api: "Api", home: str | None) -> str | None:
    """The id of a home that was named; None for `none`."""
    return None if home is None or home == NONE else str(api.find("host", home)["id"])


def told_failback(vm: Json) -> str | None:
    """A VM's home, and why it is not moved there now."""
    stands = vm.get("goes_home")
    if stands is None:
        return None
    home = f"home {vm['home']}" if vm["home"] else "no home"
    if vm["failback"] == "off":
        return f"off; {home}"
    at = stands["tries_at"]
    # A home that is still young was not tried, so nothing is tried again.
    what = "not before" if stands["code"] == "HOME_NOT_STABLE" else "tries again at"
    tries = f"failback {what} {clock(at)}: " if at else ""
    return f"{home}, {tries}{stands['code']}: {stands['detail']}"

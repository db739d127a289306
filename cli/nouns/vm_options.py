"""The options that commands on VMs share."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.nouns import vm_parts
from cli.values import size_mib


class OnIoError(StrEnum):
    """What becomes of a VM that is paused by an I/O error."""

    RESUME = "resume"
    LEAVE_PAUSED = "leave_paused"
    KILL = "kill"


class Failback(StrEnum):
    """Whether a VM goes back to its home by itself (as `domain.failback.Failback`)."""

    OFF = "off"
    AUTO = "auto"


class OnShutdown(StrEnum):
    """What becomes of a protected VM that is shut down from inside."""

    STAY = "stay"
    RESTART = "restart"


MemoryOption = typer.Option(
    "--memory", parser=size_mib, metavar="SIZE", help="Memory: 512 (MiB), 512M or 2G."
)
VcpusOption = typer.Option("--vcpus", min=1, max=512, help="Processors.")
PriorityOption = typer.Option("--priority", min=0, max=100, help="Order of restarts: 100 is first.")
ClusterOption = Annotated[
    str | None, typer.Option(help="Name or id of its cluster; needed where there are several.")
]
ProtectedOption = Annotated[
    bool, typer.Option("--protected", help="Start it elsewhere when its host is proven dead.")
]
RestartsOption = Annotated[
    int | None,
    typer.Option("--max-restart", min=0, help="How often it is started again on one host."),
]
RelocationsOption = Annotated[
    int | None, typer.Option("--max-relocate", min=0, help="On how many other hosts.")
]
ShutdownOption = Annotated[
    OnShutdown | None,
    typer.Option("--on-guest-shutdown", help="Of a protected VM that is shut down from inside."),
]
IoErrorOption = Annotated[
    OnIoError | None, typer.Option("--on-io-error", help="Of a VM that is paused by an I/O error.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Within which it should run again after a failure."),
]
DependsOption = Annotated[
    list[str] | None, typer.Option(metavar="VM", help="Start it after this VM; repeatable.")
]
AffinityOption = Annotated[
    list[str] | None, typer.Option(metavar="GROUP", help="Put it into this group; repeatable.")
]
DiskOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar=vm_parts.DISK_METAVAR, help="A disk, at this path on every host; repeatable."
    ),
]
NicOption = Annotated[
    list[str] | None,
    typer.Option(metavar=vm_parts.NIC_METAVAR, help="A network card; repeatable."),
]
KernelOption = Annotated[str | None, typer.Option(help="Boot this kernel directly.")]
InitrdOption = Annotated[str | None, typer.Option(help="Its initial RAM disk.")]
CmdlineOption = Annotated[str | None, typer.Option(help="Its command line.")]

FailbackOption = Annotated[
    Failback | None,
    typer.Option("--failback", help="auto: it is moved back to its home once that serves again."),
]
HomeOption = Annotated[
    str | None,
    typer.Option("--home", metavar="HOST", help="Name or id of the host where it runs best."),
]

"""`holdfast cluster`: what may act on its own, and how quickly."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.failures import Json
from cli.nouns.shared import VersionOption, change
from cli.nouns.switching import switch
from cli.render import clock, lasting, print_facts, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.values import duration_s, ratio

app = typer.Typer(
    help="Clusters: timing profile, automatic action on and off.", no_args_is_help=True
)

ClusterName = Annotated[str, typer.Argument(metavar="CLUSTER", help="Name or id of a cluster.")]


SomeCluster = Annotated[
    str | None, typer.Argument(metavar="CLUSTER", help="Name or id of a cluster.")
]
Everywhere = Annotated[bool, typer.Option("--all", help="Every cluster of this engine.")]


class Profile(StrEnum):
    """Timing profiles (as `domain.profiles.Profile`, whose import would slow every command)."""

    CLASSIC = "classic"
    BALANCED = "balanced"
    FAST = "fast"
    CAREFUL = "careful"


class DisarmMode(StrEnum):
    """How automatic action is switched off (as `domain.disarming.DisarmMode`)."""

    HOLD = "hold"
    FREEZE = "freeze"
    IGNORE = "ignore"


class Limit(StrEnum):
    """Limits that a cluster need not have, as options are spelt."""

    FENCES_PERCENT = "fences-percent"
    RACK_FENCES = "rack-fences"
    RACK_PERCENT = "rack-fences-percent"
    SITE_FENCES = "site-fences"
    SITE_PERCENT = "site-fences-percent"
    VCPU_OVERCOMMIT = "vcpu-overcommit"


FIELDS = {
    Limit.FENCES_PERCENT: "fences_percent",
    Limit.RACK_FENCES: "rack_fences_max",
    Limit.RACK_PERCENT: "rack_fences_percent",
    Limit.SITE_FENCES: "site_fences_max",
    Limit.SITE_PERCENT: "site_fences_percent",
    Limit.VCPU_OVERCOMMIT: "vcpu_overcommit",
}


class MakeRoom(StrEnum):
    """Whether VMs are stopped for others (as `domain.make_room.MakeRoom`)."""

    OFF = "off"
    SHUTDOWN = "shutdown"


class Switch(StrEnum):
    """Whether something is done."""

    ON = "on"
    OFF = "off"


class VirtType(StrEnum):
    """Virtualisation types (as `domain.inventory.VirtType`)."""

    KVM = "kvm"
    QEMU = "qemu"
    TEST = "test"


KEEP_TRYING_S = 600.0
"""Higher: a script hangs for longer. Lower: a database that is restored comes back too late."""

KeepTryingOption = Annotated[
    float,
    typer.Option(
        parser=duration_s,
        metavar="DURATION",
        help="How long to ask again while the engine or its database is away; 0 asks once.",
    ),
]

FenceLimit = Annotated[
    float | None,
    typer.Option(
        parser=duration_s,
        metavar="DURATION",
        help="The longest that a fence of a host may take; devices that need more are refused.",
    ),
]

FenceWindow = Annotated[
    float | None,
    typer.Option(parser=duration_s, metavar="DURATION", help="Within which fences are counted."),
]
Fences = Annotated[
    int | None,
    typer.Option(min=0, help="Hosts that may be fenced in a window; 0 leaves each to a person."),
]
FencesPercent = Annotated[
    int | None,
    typer.Option(min=1, max=100, help="… at most so many percent of the cluster's hosts."),
]
RackFences = Annotated[int | None, typer.Option(min=0, help="… at most so many of one rack.")]
RackPercent = Annotated[
    int | None,
    typer.Option("--rack-fences-percent", min=1, max=100, help="… or percent of its hosts."),
]
SiteFences = Annotated[int | None, typer.Option(min=0, help="… at most so many of one site.")]
SitePercent = Annotated[
    int | None,
    typer.Option("--site-fences-percent", min=1, max=100, help="… or percent of its hosts."),
]
StartsPerHost = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="VMs that the engine starts by itself on one host at once."),
]
MakeRoomOption = Annotated[
    MakeRoom | None,
    typer.Option(
        help="shutdown: VMs are stopped for those of higher priority that a recovery cannot place."
    ),
]
MakeRoomMax = Annotated[
    int | None, typer.Option(min=1, max=1000, help="… at most so many for one failed host.")
]
FailbackAfter = Annotated[
    float | None,
    typer.Option(
        parser=duration_s,
        metavar="DURATION",
        help="So long a home is up before VMs with --failback auto go back to it.",
    ),
]
SoftStep = Annotated[
    Switch | None,
    typer.Option(
        help="Whether a libvirtd that hangs is restarted over SSH, where there is access."
    ),
]
VcpuOvercommit = Annotated[
    float | None,
    typer.Option(
        parser=ratio,
        metavar="RATIO",
        help="vCPUs that a host may promise for each of its logical CPUs: 0.1 to 100.",
    ),
]
MemoryOvercommit = Annotated[
    float | None,
    typer.Option(
        parser=ratio,
        metavar="RATIO",
        help="Memory that a host may promise for what it has: 1 to 10; 1 is safe.",
    ),
]
Unlimited = Annotated[
    list[Limit] | None,
    typer.Option(help="Drop this limit; may be repeated."),
]


@app.command("list")
@queries
def list_(session: Session) -> None:
    """List clusters with the recovery times that their profiles predict."""
    found = session.api.all("/clusters")
    if session.as_json:
        return print_json(found)
    predicted = ("AFTER POWER CUT", "AFTER ISOLATION", "FENCE LIMIT")
    header = ("NAME", "AUTOMATIC ACTION", "PROFILE", "VIRT", *predicted)
    rows = [
        (
            item["name"],
            _armed(item),
            item["profile"],
            item["virt_type"],
            lasting(item["predicted_power_cut_s"]),
            lasting(item["predicted_isolation_s"]),
            lasting(item["fence_limit_s"]),
        )
        for item in found
    ]
    return print_table(header, rows, empty="no clusters; add one with `holdfast cluster create`")


def _armed(item: Json) -> str:
    return "armed" if item["armed"] else f"disarmed ({item['disarm_mode']})"


@app.command()
@queries
def show(session: Session, cluster: ClusterName) -> None:
    """Show one cluster: who disarmed it, and how many fences it allows."""
    found = session.api.find("cluster", cluster)
    if session.as_json:
        return print_json(found)
    by = None if found["armed"] else found["disarmed_by"] or "unknown"
    window = lasting(found["fence_window_s"])
    return print_facts(
        (
            ("name", found["name"]),
            ("automatic action", _armed(found)),
            ("disarmed by", by and f"{by}, {clock(found['disarmed_at'])}"),
            ("because", found["disarm_reason"] or None),
            ("profile", found["profile"]),
            ("virt type", found["virt_type"]),
            ("after power cut", lasting(found["predicted_power_cut_s"])),
            ("after isolation", lasting(found["predicted_isolation_s"])),
            ("a fence takes", f"at most {lasting(found['fence_limit_s'])}"),
            (f"fences in {window}", _limits(found, "fences_max", "fences_percent")),
            ("of one rack", _limits(found, "rack_fences_max", "rack_fences_percent")),
            ("of one site", _limits(found, "site_fences_max", "site_fences_percent")),
            ("make room", _made_room(found)),
            ("memory overcommit", _memory(found)),
            ("vCPU overcommit", _overcommit(found)),
            ("starts at once", f"{found['starts_per_host']} on a host, by all recoveries"),
            ("failback after", lasting(found["failback_after_s"])),
            ("soft step", "on" if found["soft_step"] else "off"),
            ("version", found["version"]),
            ("id", found["id"]),
        )
    )


def _made_room(found: Json) -> str:
    if found["make_room"] == MakeRoom.OFF:
        return "no VM is stopped for another"
    return f"at most {found['make_room_max']} VMs are stopped for those of higher priority"


def _memory(found: Json) -> str:
    most = found["memory_overcommit"]
    return "none" if most == 1 else f"a host promises up to {most:g} times what it has"


def _overcommit(found: Json) -> str:
    most = found["vcpu_overcommit"]
    return "no limit" if most is None else f"at most {most:g} vCPUs for each logical CPU"


def _limits(found: Json, most: str, percent: str) -> str:
    said = [f"at most {found[most]}"] if found[most] is not None else []
    said += [f"at most {found[percent]} % of the hosts"] if found[percent] is not None else []
    return " and ".join(said) or "no limit of its own"


@app.command()
@actions
def create(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new cluster's name.")],
    profile: Annotated[
        Profile, typer.Option(help="How long a host's silence is believed.")
    ] = Profile.BALANCED,
    virt_type: Annotated[VirtType, typer.Option(help="How guests run.")] = VirtType.KVM,
    fence_limit: FenceLimit = None,
) -> None:
    """Add a cluster."""
    body: Json = {"name": name, "profile": profile.value, "virt_type": virt_type.value}
    act.run("/clusters", body | ({"fence_limit_s": fence_limit} if fence_limit else {}))


@app.command()
@actions
def arm(act: Act, cluster: SomeCluster = None, everywhere: Everywhere = False) -> None:
    """Allow automatic action: fences and restarts."""
    switch(act, "arm", cluster, {}, everywhere=everywhere)


@app.command()
@actions
def disarm(
    act: Act,
    cluster: SomeCluster = None,
    everywhere: Everywhere = False,
    mode: Annotated[
        DisarmMode,
        typer.Option(
            help="hold: nothing is fenced; freeze: recoveries start no VM either; ignore: "
            "failures are only noted, and recoveries under way go on."
        ),
    ] = DisarmMode.HOLD,
    keep_trying: KeepTryingOption = KEEP_TRYING_S,
) -> None:
    """Stop automatic action at once: no host is fenced for a failure that comes now."""
    kept_up = act.kept_up(keep_trying)
    switch(kept_up, "disarm", cluster, {"mode": mode.value}, everywhere=everywhere)


@app.command()
@actions
def edit(
    act: Act,
    cluster: ClusterName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="How long a host's silence is believed.")
    ] = None,
    virt_type: Annotated[
        VirtType | None, typer.Option(help="How guests run, from their next start on.")
    ] = None,
    fence_limit: FenceLimit = None,
    fence_window: FenceWindow = None,
    fences: Fences = None,
    fences_percent: FencesPercent = None,
    rack_fences: RackFences = None,
    rack_percent: RackPercent = None,
    site_fences: SiteFences = None,
    site_percent: SitePercent = None,
    unlimited: Unlimited = None,
    starts_per_host: StartsPerHost = None,
    make_room: MakeRoomOption = None,
    make_room_max: MakeRoomMax = None,
    failback_after: FailbackAfter = None,
    soft_step: SoftStep = None,
    vcpu_overcommit: VcpuOvercommit = None,
    memory_overcommit: MemoryOvercommit = None,
    version: VersionOption = None,
) -> None:
    """Change a cluster; of several limits of fences the strictest holds."""
    wanted: Json = {"name": name, "profile": profile, "virt_type": virt_type}
    wanted |= {"fence_limit_s": fence_limit, "fences_max": fences}
    wanted |= {"fence_window_s": None if fence_window is None else int(fence_window)}
    wanted |= {"fences_percent": fences_percent, "starts_per_host": starts_per_host}
    wanted |= {"make_room": make_room, "make_room_max": make_room_max}
    wanted |= {"failback_after_s": None if failback_after is None else int(failback_after)}
    wanted |= {"rack_fences_max": rack_fences, "rack_fences_percent": rack_percent}
    wanted |= {"site_fences_max": site_fences, "site_fences_percent": site_percent}
    wanted |= {"soft_step": None if soft_step is None else soft_step is Switch.ON}
    wanted |= {"vcpu_overcommit": vcpu_overcommit, "memory_overcommit": memory_overcommit}
    emptied = [FIELDS[limit] for limit in unlimited or ()]
    change(act, "/clusters", act.api.find("cluster", cluster), wanted, version, emptied)


@app.command()
@actions
def remove(act: Act, cluster: ClusterName, version: VersionOption = None) -> None:
    """Remove a cluster in which nothing is left."""
    found = act.api.find("cluster", cluster)
    act.remove(f"/clusters/{found['id']}", version or found["version"])

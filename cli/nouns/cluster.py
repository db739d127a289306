"""`holdfast cluster`: what may act on its own, and how quickly."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.failures import Json
from cli.nouns.shared import VersionOption, change
from cli.render import lasting, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.values import duration_s

app = typer.Typer(
    help="Clusters: timing profile, automatic action on and off.", no_args_is_help=True
)

ClusterName = Annotated[str, typer.Argument(metavar="CLUSTER", help="Name or id of a cluster.")]


class Profile(StrEnum):
    """Timing profiles (as `domain.profiles.Profile`, whose import would slow every command)."""

    CLASSIC = "classic"
    BALANCED = "balanced"
    FAST = "fast"
    CAREFUL = "careful"


class VirtType(StrEnum):
    """Virtualisation types (as `domain.inventory.VirtType`)."""

    KVM = "kvm"
    QEMU = "qemu"
    TEST = "test"


FenceLimit = Annotated[
    float | None,
    typer.Option(
        parser=duration_s,
        metavar="DURATION",
        help="The longest that a fence of a host may take; devices that need more are refused.",
    ),
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
            "armed" if item["armed"] else "disarmed",
            item["profile"],
            item["virt_type"],
            lasting(item["predicted_power_cut_s"]),
            lasting(item["predicted_isolation_s"]),
            lasting(item["fence_limit_s"]),
        )
        for item in found
    ]
    return print_table(header, rows, empty="no clusters; add one with `holdfast cluster create`")


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
def arm(act: Act, cluster: ClusterName) -> None:
    """Allow automatic action: fences and restarts."""
    act.run(f"/clusters/{act.api.find('cluster', cluster)['id']}/actions/arm", {})


@app.command()
@actions
def disarm(act: Act, cluster: ClusterName) -> None:
    """Stop every automatic action at once: no fence, no restart."""
    act.run(f"/clusters/{act.api.find('cluster', cluster)['id']}/actions/disarm", {})


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
    version: VersionOption = None,
) -> None:
    """Change a cluster."""
    wanted: Json = {"name": name, "profile": profile, "virt_type": virt_type}
    wanted |= {"fence_limit_s": fence_limit}
    change(act, "/clusters", act.api.find("cluster", cluster), wanted, version)


@app.command()
@actions
def remove(act: Act, cluster: ClusterName, version: VersionOption = None) -> None:
    """Remove a cluster in which nothing is left."""
    found = act.api.find("cluster", cluster)
    act.remove(f"/clusters/{found['id']}", version or found["version"])

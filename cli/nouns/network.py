"""`holdfast network`: what the network cards of VMs are connected to."""

from typing import Annotated

import typer

from cli.failures import Exit, failure
from cli.nouns.shared import VersionOption, change, cluster_id
from cli.render import print_json, print_table
from cli.session import Act, Session, actions, queries

app = typer.Typer(
    help="Networks: bridges of a cluster's hosts, or QEMU's own NAT.", no_args_is_help=True
)

NetworkName = Annotated[str, typer.Argument(metavar="NETWORK", help="Name or id of a network.")]


@app.command("list")
@queries
def list_(
    session: Session,
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster.")] = None,
) -> None:
    """List networks with the number of VMs on each."""
    in_cluster = None if cluster is None else session.api.find("cluster", cluster)["id"]
    found = session.api.all("/networks", cluster_id=in_cluster)
    if session.as_json:
        return print_json(found)
    rows = [
        (item["name"], item["bridge"] or "QEMU's own NAT", item["vms"], item["version"])
        for item in found
    ]
    header = ("NAME", "BRIDGE", "VMs", "VERSION")
    return print_table(header, rows, empty="no networks; add one with `holdfast network create`")


@app.command()
@actions
def create(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new network's name.")],
    bridge: Annotated[
        str | None,
        typer.Option(help="A bridge that every host of the cluster has; else QEMU's own NAT."),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Name or id of its cluster; needed where there are several.")
    ] = None,
) -> None:
    """Add a network."""
    body = {"cluster_id": cluster_id(act.api, cluster), "name": name, "bridge": bridge}
    act.run("/networks", body)


@app.command()
@actions
def edit(
    act: Act,
    network: NetworkName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    bridge: Annotated[str | None, typer.Option(help="Another bridge.")] = None,
    nat: Annotated[bool, typer.Option("--nat", help="QEMU's own NAT instead of a bridge.")] = False,
    version: VersionOption = None,
) -> None:
    """Change a network; VMs that run stay connected as they are until their next start."""
    if nat and bridge is not None:
        raise failure(
            Exit.USAGE,
            "BRIDGE_AND_NAT",
            f"a network is either the bridge {bridge} or QEMU's own NAT",
            next_step="give --bridge or --nat",
        )
    found = act.api.find("network", network)
    if nat:
        named = {} if name is None else {"name": name}
        act.edit(f"/networks/{found['id']}", named | {"bridge": None}, version or found["version"])
        return
    change(act, "/networks", found, {"name": name, "bridge": bridge}, version)


@app.command()
@actions
def remove(act: Act, network: NetworkName, version: VersionOption = None) -> None:
    """Remove a network that no VM has a card on."""
    found = act.api.find("network", network)
    act.remove(f"/networks/{found['id']}", version or found["version"])

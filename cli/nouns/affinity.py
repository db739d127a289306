"""`holdfast affinity`: which VMs belong together or apart, and on which hosts."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Json
from cli.nouns.shared import VersionOption, change, cluster_id
from cli.nouns.vm_parts import NONE
from cli.render import print_facts, print_json, print_table
from cli.session import Act, Session, actions, queries

if TYPE_CHECKING:
    from cli.client import Api

app = typer.Typer(
    help="Affinity groups: VMs together, apart, or on certain hosts.", no_args_is_help=True
)

GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="Name or id of an affinity group.")]
VmOption = Annotated[
    list[str] | None, typer.Option("--vm", metavar="VM", help="A VM in it; repeatable.")
]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Each VM on (or off) this host; repeatable."),
]


@app.command("list")
@queries
def list_(
    session: Session,
    cluster: Annotated[str | None, typer.Option(help="Only those of this cluster.")] = None,
) -> None:
    """List affinity groups."""
    in_cluster = None if cluster is None else session.api.find("cluster", cluster)["id"]
    found = session.api.all("/affinity-groups", cluster_id=in_cluster)
    if session.as_json:
        return print_json(found)
    rows = [
        (item["name"], *_rule(item), len(item["vm_ids"]), len(item["host_ids"]), item["version"])
        for item in found
    ]
    header = ("NAME", "RULE", "STRENGTH", "VMs", "HOSTS", "VERSION")
    empty = "no affinity groups; add one with `holdfast affinity create`"
    return print_table(header, rows, empty=empty)


def _rule(group: Json) -> tuple[str, str]:
    together = "together" if group["together"] else "apart"
    if group["host_ids"]:
        together = "on its hosts" if group["together"] else "off its hosts"
    return together, "hard" if group["hard"] else "soft"


@app.command()
@queries
def show(session: Session, group: GroupName) -> None:
    """Show one affinity group with its members."""
    found = session.api.find("affinity group", group)
    if session.as_json:
        return print_json(found)
    rule, strength = _rule(found)
    vms = sorted(session.api.get(f"/vms/{member}")["name"] for member in found["vm_ids"])
    hosts = sorted(session.api.get(f"/hosts/{member}")["name"] for member in found["host_ids"])
    return print_facts(
        (
            ("name", found["name"]),
            ("rule", rule),
            ("strength", strength),
            ("VMs", vms),
            ("hosts", hosts or None),
            ("version", found["version"]),
            ("id", found["id"]),
        )
    )


@app.command()
@actions
def create(
    act: Act,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new group's name.")],
    together: Annotated[
        bool,
        typer.Option("--together/--apart", help="On one host (on its hosts), or on none of them."),
    ],
    hard: Annotated[
        bool, typer.Option("--hard/--soft", help="Never broken, or only where it must be.")
    ] = False,
    vm: VmOption = None,
    host: HostOption = None,
    cluster: Annotated[
        str | None, typer.Option(help="Name or id of its cluster; needed where there are several.")
    ] = None,
) -> None:
    """Add an affinity group; VMs that run stay where they are."""
    body: Json = {"cluster_id": cluster_id(act.api, cluster), "name": name}
    act.run("/affinity-groups", body | {"together": together, "hard": hard} | _ids(act, vm, host))


@app.command()
@actions
def edit(
    act: Act,
    group: GroupName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    together: Annotated[
        bool | None,
        typer.Option("--together/--apart", help="On one host (on its hosts), or on none of them."),
    ] = None,
    hard: Annotated[
        bool | None, typer.Option("--hard/--soft", help="Never broken, or only where it must be.")
    ] = None,
    vm: VmOption = None,
    host: HostOption = None,
    version: VersionOption = None,
) -> None:
    """Change an affinity group; members are given whole, and `none` leaves none."""
    found = act.api.find("affinity group", group)
    wanted: Json = {"name": name, "together": together, "hard": hard} | _ids(act, vm, host)
    change(act, "/affinity-groups", found, wanted, version)


@app.command()
@actions
def delete(act: Act, group: GroupName, version: VersionOption = None) -> None:
    """Delete an affinity group; its VMs stay where they are."""
    found = act.api.find("affinity group", group)
    act.remove(f"/affinity-groups/{found['id']}", version or found["version"])


def _ids(act: Act, vms: list[str] | None, hosts: list[str] | None) -> Json:
    found: Json = {}
    for field, noun, given in (("vm_ids", "vm", vms), ("host_ids", "host", hosts)):
        if given:
            some = [] if given == [NONE] else given
            found[field] = [_id(act.api, noun, name) for name in some]
    return found


def _id(api: "Api", noun: str, name: str) -> str:
    return str(api.find(noun, name)["id"])

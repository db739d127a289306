"""`holdfast simulate export` and `what-if`: what a loss would do to this very engine.

`export` reads a running engine's inventory; `what-if` plays a loss on it, with the engine's own
code, on no machine but this one.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit, failure
from cli.render import print_facts, print_json, print_line, print_table
from cli.session import Session, queries

if TYPE_CHECKING:
    from simulator.what_if.answer import Answer, VmAnswer
    from simulator.what_if.inventory import Cluster, Inventory
    from simulator.what_if.play import Loss

HEADER = ("VM", "WAS ON", "PROTECTED", "BACK ON", "AFTER", "BUDGET", "WHY NOT")


@queries
def export(session: Session) -> None:
    """Print a running engine's inventory as JSON, for `what-if`."""
    from simulator.what_if.inventory import inventory_of

    now = datetime.now(UTC).isoformat(timespec="seconds")
    print_json(inventory_of(session.api, now).model_dump(mode="json"))


def what_if(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An inventory, from `export`.")],
    lose: Annotated[
        list[str], typer.Option("--lose", help="host:NAME or rack:NAME; may be repeated.")
    ],
    at: Annotated[
        list[float] | None,
        typer.Option("--at", help="Second at which it is lost; one for each --lose, in order."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other delays.")] = 0,
    bmc_dies: Annotated[
        bool, typer.Option("--bmc-dies", help="Power controllers lose their supply as well.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Play the loss of hosts: which VMs come back where and when, which wait and why.

    Ends with 1 when a protected VM does not come back.
    """
    from simulator.what_if.inventory import read_inventory
    from simulator.what_if.play import losses_of, play

    losses = losses_of(lose, at or ())
    inventory = read_inventory(file)
    hit = _hit(inventory, losses)
    answers = [play(cluster, losses, seed=seed, bmc_dies=bmc_dies) for cluster in hit]
    if as_json:
        print_json([_plain(answer) for answer in answers])
    else:
        for answer in answers:
            show(answer)
    if not all(answer.all_back and not answer.broken for answer in answers):
        raise typer.Exit(1)


def show(answer: "Answer") -> None:
    """Print what happened in one cluster for people."""
    print_line(f"cluster {answer.cluster}")
    for host in answer.hosts:
        proof = "not proven dead" if host.proven_s is None else f"dead, proven {host.proven_s:g} s"
        cut = ", power cut by the engine" if host.fenced else ""
        cut += ", its fence devices share its power supply" if host.blocks else ""
        print_line(f"  {host.name}: {proof}{cut}; {host.state}: {host.why}")
    for wait in answer.waits:
        print_line(f"  {wait}")
    print_line()
    print_table(HEADER, map(_row, answer.vms), empty="no VM ran there")
    print_line()
    protected = [vm for vm in answer.vms if vm.protected]
    times = [vm.back_s for vm in protected if vm.back_s is not None]
    print_facts(
        [
            ("protected VMs hit", len(protected)),
            ("back", sum(vm.back for vm in protected)),
            ("first, last", f"{min(times):.1f} s, {max(times):.1f} s" if times else None),
            ("over budget", sum(vm.late for vm in protected)),
            ("not as promised", answer.broken or None),
        ]
    )


def _row(vm: "VmAnswer") -> tuple[object, ...]:
    after = "" if vm.back_s is None else f"{vm.back_s:.1f} s"
    budget = "" if vm.budget_s is None else f"{vm.budget_s} s"
    return vm.name, vm.was_on, vm.protected, vm.on or "-", after, budget, vm.why


def _plain(answer: "Answer") -> dict[str, object]:
    return answer.model_dump(mode="json") | {"all_back": answer.all_back}


def _hit(inventory: "Inventory", losses: "tuple[Loss, ...]") -> "list[Cluster]":
    """The clusters that any loss hits; a loss that hits nothing is a mistake in the command."""
    for loss in losses:
        if not any(loss.hosts(cluster) for cluster in inventory.clusters):
            raise failure(
                Exit.NOT_FOUND,
                "LOSS_HITS_NOTHING",
                f"no host in service is {loss.kind} {loss.name} in this inventory",
                'hosts are in `clusters[].hosts`; `host edit --rack` or a "rack" there tells racks',
            )
    return [
        cluster for cluster in inventory.clusters if any(loss.hosts(cluster) for loss in losses)
    ]

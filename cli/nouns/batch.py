"""`holdfast batch`: many actions in one request, read from a file."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failures import Exit, Json, failure
from cli.render import print_json, print_line, print_table
from cli.session import Act, actions

if TYPE_CHECKING:
    from cli.client import Api

app = typer.Typer(help="Batches: many actions in one request.", no_args_is_help=True)

NAMED = ("cluster", "host", "network", "vm")
"""What the parameters in a file may name, as `vm` instead of `vm_id`."""

AtOnceOption = Annotated[
    int, typer.Option(min=1, max=1000, help="How many of them are under way at a time.")
]
StopOption = Annotated[
    bool, typer.Option("--stop-on-error", help="Begin none of those behind one that fails.")
]
AllOption = Annotated[
    bool, typer.Option("--all-or-nothing", help="Accept none unless every one is allowed.")
]


@app.command()
@actions
def run(
    act: Act,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON with a list of actions; - is the input.")
    ],
    at_once: AtOnceOption = 50,
    stop_on_error: StopOption = False,
    all_or_nothing: AllOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of each.")
    ] = False,
) -> None:
    """Ask for up to 1,000 actions at once; each becomes an operation of its own.

    The file: [{"kind": "vm.start", "params": {"vm": "db01"}}, ...]
    """
    body = batch(
        _named(act.api, _read(file)),
        at_once=at_once,
        stop_on_error=stop_on_error,
        all_or_nothing=all_or_nothing,
    )
    if dry_run:
        seen = act.api.ask("POST", "/batches?dry_run=true", body, {})
        _show(act, seen)
        if all_or_nothing and not all(item["allowed"] for item in seen["actions"]):
            raise typer.Exit(Exit.CONFLICT)
        return None
    return act.run("/batches", body)


def batch(items: list[Json], **options: Any) -> Json:
    """What a request for many actions carries: each a kind with its parameters."""
    return {"actions": items} | options


def _read(file: str) -> list[Json]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise _unreadable(file, str(error)) from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _unreadable(file, "it holds no list of actions")
    return found


def _unreadable(file: str, why: str) -> Exception:
    return failure(
        Exit.USAGE,
        "FILE_UNREADABLE",
        f"{file}: {why}",
        next_step='write [{"kind": "vm.start", "params": {"vm": "NAME"}}, ...]',
    )


def _named(api: "Api", items: list[Json]) -> list[Json]:
    """The same actions with ids where the file has names; each name is looked up once."""
    known: dict[tuple[str, str], str] = {}

    def found(noun: str, name: str) -> str:
        if (noun, name) not in known:
            known[noun, name] = api.find(noun, name)["id"]
        return known[noun, name]

    def params(given: Json) -> Json:
        names = {noun: given[noun] for noun in NAMED if isinstance(given.get(noun), str)}
        rest = {key: value for key, value in given.items() if key not in names}
        return rest | {f"{noun}_id": found(noun, name) for noun, name in names.items()}

    return [
        item | {"params": params(item["params"])} if isinstance(item.get("params"), dict) else item
        for item in items
    ]


def _show(act: Act, seen: Json) -> None:
    if act.session.as_json:
        return print_json(seen)
    header = ("NUMBER", "KIND", "TARGET", "ALLOWED", "WHY NOT")
    rows = [
        (
            str(number),
            item["kind"],
            item["target_name"],
            "yes" if item["allowed"] else "no",
            "; ".join(f"{one['detail']} ({one['code']})" for one in item["problems"]) or None,
        )
        for number, item in enumerate(seen["actions"], start=1)
    ]
    print_table(header, rows)
    refused = sum(not item["allowed"] for item in seen["actions"])
    print_line(f"{len(rows) - refused} of {len(rows)} would be accepted")
    return None

"""`holdfast audit`: who did what to which object, why, and what it changed."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.failures import Json
from cli.render import clock, print_json, print_table
from cli.session import Session, queries
from cli.terminal import clean, say
from cli.values import as_id, moment

app = typer.Typer(help="The audit trail: who did what, and why.", no_args_is_help=True)

When = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="A time, or how long ago (2h)."),
]


@app.command("list")
@queries
def list_(
    session: Session,
    vm: Annotated[str | None, typer.Option(help="Only about this VM.")] = None,
    host: Annotated[str | None, typer.Option(help="Only about this host.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Only about this cluster.")] = None,
    entity: Annotated[
        tuple[str, UUID] | None,
        typer.Option(metavar="TYPE ID", help="Only about this object, such as affinity_group ID."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Such as vm.start.accepted.")] = None,
    by: Annotated[str | None, typer.Option(help="Only what this principal did.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only of the operation of this id.")] = None,
    correlation: Annotated[str | None, typer.Option(help="Only under this id.")] = None,
    since: When = None,
    until: When = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended.")] = None,
) -> None:
    """List what was done, newest first.

    Example: holdfast audit list --vm db01 --since 2d
    """
    page = session.api.get(
        "/audit",
        **_about(session, entity, vm=vm, host=host, cluster=cluster),
        type=kind,
        principal=by,
        operation_id=operation,
        correlation_id=correlation,
        since=since and since.isoformat(),
        until=until and until.isoformat(),
        limit=limit,
        cursor=cursor,
    )
    if session.as_json:
        return print_json(page)
    header = ("AT", "BY", "EVENT", "OBJECT", "WHY", "CHANGED", "OPERATION")
    print_table(header, [_row(item) for item in page["items"]], empty="nothing was done")
    if page["next_cursor"]:
        say(f"more: --cursor {clean(page['next_cursor'])}")
    return None


def _about(
    session: Session, entity: tuple[str, UUID] | None, **named: str | None
) -> dict[str, Any]:
    """The object to ask about. An id is not looked up: the trail outlives what it is about."""
    given = [(noun, name) for noun, name in named.items() if name is not None]
    if len(given) + (entity is not None) > 1:
        raise typer.BadParameter(
            "an event is about one object: give one of --vm --host --cluster --entity"
        )
    if entity is not None:
        return {"entity_type": entity[0], "entity_id": str(entity[1])}
    if not given:
        return {}
    noun, name = given[0]
    entity_id = as_id(name) or session.api.find(noun, name)["id"]
    return {"entity_type": noun, "entity_id": entity_id}


def _row(item: Json) -> tuple[str | None, ...]:
    return (
        clock(item["at"]),
        item["principal"],
        item["type"],
        item["data"].get("name") or f"{item['subject_type']} {item['subject_id']}",
        item["reason"] or item["data"].get("code") or item["data"].get("why"),
        _changed(item["before"] or {}, item["after"] or {}),
        item["operation_id"],
    )


def _changed(before: Json, after: Json) -> str | None:
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    words = [
        f"{key}: {before[key]} → {after.get(key)}" if key in before else f"{key}: {after[key]}"
        for key in keys
    ]
    return ", ".join(words) or None

"""`holdfast event`: everything that happened, in order and without gaps."""

from typing import Annotated

import typer

from cli.render import clock, print_json, print_table
from cli.session import Session, queries
from cli.terminal import clean, say

app = typer.Typer(help="Events: what happened, in order.", no_args_is_help=True)


@app.command("list")
@queries
def list_(
    session: Session,
    after: Annotated[int, typer.Option(min=0, help="Only after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
) -> None:
    """List events, oldest first."""
    page = session.api.get("/events", after=after, limit=limit)
    if session.as_json:
        return print_json(page)
    rows = [
        (
            item["seq"],
            clock(item["at"]),
            item["type"],
            item["data"].get("name") or f"{item['subject_type']} {item['subject_id']}",
            item["principal"],
            item["data"].get("code") or item["data"].get("summary") or item["data"].get("why"),
            item["operation_id"],
        )
        for item in page["items"]
    ]
    header = ("NUMBER", "AT", "EVENT", "OBJECT", "BY", "NOTE", "OPERATION")
    print_table(header, rows, empty="no events")
    if page["next_cursor"] and len(rows) == limit:
        say(f"more: --after {clean(page['next_cursor'])}")
    return None

"""`holdfast op`: operations, the durable runs of accepted actions."""

from datetime import datetime
from typing import Annotated

import typer

from cli.failures import Json
from cli.nouns.explanation import tell_operation
from cli.nouns.shared import operation_id
from cli.progress import Progress, tree
from cli.render import (
    clock,
    lasting,
    parsed,
    precise,
    print_facts,
    print_json,
    print_line,
    print_table,
)
from cli.session import (
    DEFAULT_WAIT,
    Act,
    ProgressOption,
    Session,
    TimeoutOption,
    actions,
    follow,
    queries,
)
from cli.terminal import clean, say
from cli.values import moment

app = typer.Typer(help="Operations: what runs, waits, failed, and why.", no_args_is_help=True)

OperationId = Annotated[str, typer.Argument(metavar="ID", help="Id of an operation.")]
When = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="A time, or how long ago (2h)."),
]
FOREVER = "forever"


@app.command("list")
@queries
def list_(
    session: Session,
    state: Annotated[
        str | None, typer.Option(help="Only in this state, such as running or failed.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as vm.start.")] = None,
    vm: Annotated[str | None, typer.Option(help="Only on this VM.")] = None,
    host: Annotated[str | None, typer.Option(help="Only on this host.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only parts of this operation.")] = None,
    by: Annotated[str | None, typer.Option(help="Only what this principal asked for.")] = None,
    since: When = None,
    until: When = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended.")] = None,
) -> None:
    """List operations, newest first."""
    if vm is not None and host is not None:
        raise typer.BadParameter("an operation has one target: give --vm or --host")
    target = ("vm", vm) if vm is not None else ("host", host)
    target_id = None if target[1] is None else session.api.find(target[0], target[1])["id"]
    page = session.api.get(
        "/operations",
        state=state,
        kind=kind,
        target_id=target_id,
        parent_id=None if parent is None else operation_id(parent),
        principal=by,
        since=since and since.isoformat(),
        until=until and until.isoformat(),
        limit=limit,
        cursor=cursor,
    )
    if session.as_json:
        return print_json(page)
    header = ("ID", "KIND", "TARGET", "STATE", "BY", "CREATED", "TOOK", "NOTE")
    print_table(header, [_row(session, item) for item in page["items"]], empty="no operations")
    if page["next_cursor"]:
        say(f"more: --cursor {clean(page['next_cursor'])}")
    return None


def _row(session: Session, item: Json) -> tuple[str | None, ...]:
    began = parsed(item["started_at"])
    ended = parsed(item["finished_at"]) or session.api.now()
    problem = item["problem"] or {}
    note = problem.get("detail") or item["waiting_for"] or item["summary"]
    return (
        item["id"],
        item["kind"],
        item["target_name"],
        item["state"],
        item["principal"],
        clock(item["created_at"]),
        None if began is None else lasting((ended - began).total_seconds()),
        note,
    )


@app.command()
@queries
def show(
    session: Session,
    operation: OperationId,
    blocked: Annotated[
        bool, typer.Option("--blocked", help="Only what keeps it from going on, one a line.")
    ] = False,
) -> None:
    """Show one operation with its steps and children, and what it waits for."""
    found = session.api.get(f"/operations/{operation_id(operation)}")
    if session.as_json:
        return print_json(found["blocked_by"] if blocked else found)
    if blocked:
        return _show_blocks(found)
    problem = found["problem"] or {}
    print_facts(
        (
            ("operation", f"{found['kind']} {found['target_name']}"),
            ("state", found["state"]),
            ("why", problem.get("detail") and f"{problem['detail']} ({problem['code']})"),
            ("waiting for", found["waiting_for"]),
            ("next", problem.get("next_step") or found.get("next_step") or None),
            ("looked at again", _next_look(session, found)),
            ("gives up", found["gives_up_at"] and clock(found["gives_up_at"])),
            ("blocked by", "; ".join(_block(block) for block in found["blocked_by"]) or None),
            ("progress", _progress(found)),
            ("tries", found["attempt"] if found["attempt"] > 1 else None),
            ("priority", found["priority"]),
            ("result", found["summary"]),
            ("by", found["principal"]),
            ("reason", found["reason"] or None),
            ("created", clock(found["created_at"])),
            ("finished", found["finished_at"] and clock(found["finished_at"])),
            ("incident", found["incident_id"]),
            ("parent", found["parent_id"]),
            ("workflow", found["workflow_id"]),
            ("correlation id", found["correlation_id"]),
            ("id", found["id"]),
        )
    )
    if found["steps"] or found["children"]:
        print_line()
        _show_tree(session, found)
    return None


@app.command()
@queries
def explain(session: Session, operation: OperationId) -> None:
    """Say why each decision of an operation came out as it did, and why nothing else.

    It tells of the operation's parts, too: of a host's maintenance where each VM went.
    """
    told = session.api.get(f"/operations/{operation_id(operation)}/explanation")
    return print_json(told) if session.as_json else tell_operation(told)


def _next_look(session: Session, found: Json) -> str | None:
    at = parsed(found["next_look_at"])
    if at is None:
        return None
    left_s = (at - session.api.now()).total_seconds()
    if left_s <= 0:
        return "now; if this stays so, no worker has come to it"
    return f"in {lasting(left_s)} at the latest, and at once when something changes"


def _show_blocks(found: Json) -> None:
    rows = [
        (block["what"], block["detail"], block["operation_id"]) for block in found["blocked_by"]
    ]
    nothing = "nothing: it has ended" if found["done"] else "nothing: it is at work"
    print_table(("WHAT", "WHY", "OPERATION"), rows, empty=nothing)


def _block(block: Json) -> str:
    other = block["operation_id"]
    return f"{block['detail']} ({other})" if other else f"{block['detail']}"


def _progress(found: Json) -> str | None:
    total, end = found["progress_total"], found["predicted_end_at"]
    done = f"{found['progress_done'] or 0} of {total}" if total else ""
    expected = f"should end at {clock(end)}" if end else ""
    return ", ".join(part for part in (done, expected) if part) or None


def _show_tree(session: Session, found: Json) -> None:
    now = session.api.now()
    rows = [
        (
            f"{'  ' * (node.depth - 1)}{node.icon} {node.title}",
            node.state,
            node.tries,
            node.began and precise(node.began.isoformat()),
            lasting(node.took_s(now)),
            node.note or None,
        )
        for node in tree(found)
        if node.depth > 0
    ]
    print_table(("STEP", "STATE", "TRIES", "BEGAN", "TOOK", "NOTE"), rows)


@app.command()
@queries
def watch(
    session: Session,
    operation: OperationId,
    timeout: TimeoutOption = FOREVER,  # type: ignore[assignment]  # parsed like an argument
    progress: ProgressOption = Progress.AUTO,
) -> None:
    """Follow an operation to its end; interrupting that does not cancel it."""
    found = session.api.get(f"/operations/{operation_id(operation)}")
    follow(session, found, progress, timeout)


@app.command()
@queries
def wait(
    session: Session,
    operation: OperationId,
    timeout: TimeoutOption = DEFAULT_WAIT,  # type: ignore[assignment]  # parsed like an argument
) -> None:
    """Wait without a word for an operation's end; the exit code says how it ended."""
    found = session.api.get(f"/operations/{operation_id(operation)}")
    follow(session, found, Progress.NONE, timeout)


@app.command()
@actions
def cancel(act: Act, operation: OperationId) -> None:
    """Cancel an operation: at once when it has not begun, else it undoes what it did by itself."""
    _ask(act, operation, "cancel")


@app.command()
@actions
def retry(act: Act, operation: OperationId) -> None:
    """Try an operation again that has not succeeded, and follow it."""
    found = operation_id(operation)
    act.set_going(f"/operations/{found}/actions/retry", {}, f"/operations/{found}")


@app.command()
@actions
def pause(act: Act, operation: OperationId) -> None:
    """Let an operation stand still before its next step that allows it."""
    _ask(act, operation, "pause")


@app.command()
@actions
def resume(act: Act, operation: OperationId) -> None:
    """Let a paused operation go on."""
    _ask(act, operation, "resume")


@app.command()
@actions
def prioritise(
    act: Act,
    operation: OperationId,
    priority: Annotated[
        int, typer.Argument(min=1, max=5, help="2 goes first, 5 last; 1 is for recovery.")
    ],
) -> None:
    """Give an operation, and what is open below it, another priority class."""
    _ask(act, operation, "prioritise", priority=priority)


def _ask(act: Act, operation: str, verb: str, **body: int) -> None:
    act.run(f"/operations/{operation_id(operation)}/actions/{verb}", body)

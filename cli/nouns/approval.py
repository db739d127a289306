"""`holdfast approval`: what the storm guard holds back until a person says go on."""

from typing import Annotated

import typer

from cli.failures import Json
from cli.render import clock, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.terminal import say

app = typer.Typer(help="Approvals of fences that the storm guard holds.", no_args_is_help=True)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="Name or id of a host.")]


@app.command("list")
@queries
def list_(session: Session) -> None:
    """List fences that wait for a person, and what was approved."""
    found = session.api.get("/approvals")
    if session.as_json:
        return print_json(found)
    rows = [
        (one["host_name"], clock(one["opened_at"]), _state(one), one["why"] or "-") for one in found
    ]
    return print_table(
        ("HOST", "SINCE", "APPROVAL", "WAITS FOR"), rows, empty="nothing waits for an approval"
    )


def _state(waiting: Json) -> str:
    valid = [given for given in waiting["approvals"] if given["valid"]]
    if valid:
        return f"by {valid[-1]['principal']}: {valid[-1]['reason']}"
    if waiting["approvals"]:
        last = waiting["approvals"][-1]
        return f"{'withdrawn' if last['withdrawn_at'] else 'expired'}, by {last['principal']}"
    return "none" if waiting["approvable"] else "no use"


@app.command()
@actions
def give(
    act: Act,
    host: HostName,
    why: Annotated[str, typer.Option("--why", help="Why; it stands in the audit.")],
    lasts: Annotated[
        int, typer.Option("--for", min=60, max=86_400, help="Seconds for which it counts.")
    ] = 900,
    yes: Annotated[bool, typer.Option("--yes", help="Ask no more.")] = False,
) -> None:
    """Let a silent host be fenced though many are silent or the fence budget is spent."""
    found = act.api.find("host", host)
    if not yes:
        say(f"The power of {found['name']} will be cut though the storm guard holds it back.")
        say("If its silence is our own network's, its guests die for nothing.")
        typer.confirm(f"Is {found['name']} really down", abort=True, err=True)
    body = {"reason": why, "lasts_s": lasts}
    act.run(f"/hosts/{found['id']}/actions/approve-fence", body)


@app.command()
@actions
def withdraw(act: Act, host: HostName) -> None:
    """Take back what was approved; power that is being cut is not called back."""
    act.run(f"/hosts/{act.api.find('host', host)['id']}/actions/withdraw-approval", {})

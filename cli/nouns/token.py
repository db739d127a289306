"""`holdfast token`: who may ask this machine's engine, and as what.

Works on the engine's folder, with or without a running engine, which heeds a change at its next
request. A token is printed once, at its making, and is kept nowhere: only its digest is.
"""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.render import print_json, print_table
from cli.session import Session, queries
from cli.terminal import say

if TYPE_CHECKING:
    from api.people import People

app = typer.Typer(help="Tokens of people and programs, each with a role.", no_args_is_help=True)

Person = Annotated[str, typer.Argument(metavar="NAME", help="Of a person or a program.")]


class Role(StrEnum):
    """Roles that can be given (as `api.people.GIVEN`, whose import would slow every command)."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUTOMATION = "automation"
    VIEWER = "viewer"


@app.command("list")
@queries
def list_(session: Session) -> None:
    """List who may ask, with their roles."""
    rows = list(_people().items())
    if session.as_json:
        return print_json([{"name": name, "role": role.value} for name, role in rows])
    return print_table(("NAME", "ROLE"), [(name, role.value) for name, role in rows], empty="")


@app.command()
def add(
    name: Person,
    role: Annotated[Role, typer.Option(help="What they may do: docs/access.md.")],
) -> None:
    """Give somebody a token; it is the one line on standard output."""
    from domain.permissions import Role as Given

    token = _people().add(name, Given(role.value))
    say(f"{name} may ask as {role.value}; this token is shown once:")
    typer.echo(token)


@app.command()
def remove(name: Person) -> None:
    """End somebody's token, from the next request on."""
    _people().remove(name)
    say(f"{name} has no token any more")


def _people() -> "People":
    from api.people import People, people_file
    from worker.settings import Settings

    return People(people_file(Settings.from_env(os.environ).var))

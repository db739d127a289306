"""`holdfast db`: the engine's own database, without the engine: its revision, and moving it.

Works on the database itself, so the engine must not run meanwhile: where its folder is known, the
copy holds the folder's lock, and an engine that runs there refuses it. An address that holds a
password is not taken from the command line, which every user of the machine can read: write
`env:NAME` to have it read from a variable. No address is printed with its password.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.render import print_json
from cli.session import Session, queries
from cli.terminal import say
from domain.errors import Invalid

app = typer.Typer(help="The engine's database: upgrade, revision, move.", no_args_is_help=True)

HELP = "An address such as sqlite+aiosqlite:////path/file.db, or env:NAME to read it from there."
Address = Annotated[str, typer.Argument(help=HELP, metavar="DATABASE", show_default=False)]
OWN = "env:HOLDFAST_DATABASE_URL"
Own = Annotated[
    str, typer.Argument(help=f"{HELP} Without one, the engine's own.", metavar="[DATABASE]")
]


@app.command()
def upgrade(database: Own = OWN) -> None:
    """Bring the tables to what this version expects; make a backup before. Repeatable."""
    from store import migrate

    url = _address(database)
    asyncio.run(migrate.upgrade(url))
    say(f"{shown(url)} is at revision {migrate.newest()}")


@app.command()
@queries
def current(session: Session, database: Own = OWN) -> None:
    """Show the revision of the tables, and the one that this version expects."""
    from store import migrate

    url = _address(database)
    found = asyncio.run(migrate.current(url))
    if session.as_json:
        return print_json({"revision": found, "newest": migrate.newest()})
    typer.echo(f"{found or 'none'} (this version expects {migrate.newest()})")
    return None


@app.command("copy")
def copy_(
    source: Annotated[str, typer.Argument(metavar="FROM", help=HELP, show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TO", help=HELP, show_default=False)],
) -> None:
    """Copy everything into an empty database, of the same or another kind, and compare."""
    from store.copy import copy

    urls = _address(source), _address(target)
    with _no_engine(urls), _progress() as told:
        copied = asyncio.run(copy(*urls, told))
    say(f"copied and compared {sum(copied.values())} rows of {len(copied)} tables")
    say(f"from {shown(urls[0])}")
    say(f"to   {shown(urls[1])}")
    say("next: set HOLDFAST_DATABASE_URL to the new address and start the engine")
    say("keep HOLDFAST_VAR, or take its secret.key along: no other key opens the fence devices")


def shown(url: str) -> str:
    """An address without its password."""
    import sqlalchemy as sa

    return sa.make_url(url).render_as_string(hide_password=True)


def _address(given: str) -> str:
    """The address that an argument stands for. Invalid when it is none, or holds a password."""
    import sqlalchemy as sa

    from store.dialects import check_url

    url = _from_variable(given.removeprefix("env:")) if given.startswith("env:") else given
    check_url(url)
    if url is given and sa.make_url(url).password:
        raise Invalid(
            "PASSWORD_IN_ARGUMENTS",
            "every user of this machine can read the arguments of a command",
            next_step="put the address into a variable and write env:NAME instead",
        )
    return url


def _from_variable(name: str) -> str:
    from worker.settings import Settings

    if f"env:{name}" == OWN:
        return Settings.from_env(os.environ).database
    url = os.environ.get(name)
    if not url:
        raise Invalid(
            "VARIABLE_MISSING",
            f"the variable {name} is not set",
            next_step=f"set {name} to the address of the database",
            variable=name,
        )
    return url


@contextmanager
def _no_engine(urls: tuple[str, ...]) -> Iterator[None]:
    """Keep every engine's folder that belongs to the databases. Conflict while an engine runs."""
    from cli.claims import LOCK_FILE, only_engine

    with ExitStack() as claims:
        for folder in sorted(_folders(urls)):
            if (folder / LOCK_FILE).exists():
                claims.enter_context(only_engine(folder))
        yield


def _folders(urls: tuple[str, ...]) -> set[Path]:
    import sqlalchemy as sa

    from worker.settings import Settings

    addresses = [sa.make_url(url) for url in urls]
    files = [a.database for a in addresses if a.drivername.startswith("sqlite")]
    settings = Settings.from_env(os.environ)
    own = {settings.var.resolve()} if settings.database in urls else set()
    return own | {Path(file).resolve().parent for file in files if file}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def told(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bar.add_task(table, total=total)
            bar.update(tasks[table], completed=done)

        yield told

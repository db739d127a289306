"""`holdfast`: the one program for people, on top of the REST API.

Commands on objects talk HTTP only. The commands that run on this machine (`up`, `demo`, `lab`, the
engine's processes) import their parts when they are called: `--help` and completion stay quick.
"""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import lab, simulate
from cli.failures import BY_STATUS, Exit, Failure, failure
from cli.nouns import (
    affinity,
    approval,
    audit,
    batch,
    cluster,
    db,
    event,
    fence,
    host,
    incident,
    network,
    op,
    token,
    vm,
)
from cli.session import Session
from cli.terminal import say
from domain.errors import EngineError

OBJECTS = (
    "cluster",
    "network",
    "host",
    "vm",
    "affinity",
    "batch",
    "op",
    "incident",
    "fence",
    "approval",
    "event",
    "audit",
)
ORDER = (
    *OBJECTS,
    "up",
    "demo",
    "token",
    "db",
    "lab",
    "simulate",
    "api",
    "worker",
    "monitor",
    "relay",
)


class Root(TyperGroup):
    """Ends every command by its exit code, with the problem on standard error."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Objects first, then what runs on this machine, then the engine's processes."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; failures of every kind are told here and nowhere else."""
        try:
            return super().invoke(ctx)
        except Failure as found:
            raise _told(ctx, found) from found
        except EngineError as error:
            raise _told(ctx, _of_engine(error)) from error
        except (KeyboardInterrupt, typer.Abort):
            # Abort is what an interrupted prompt raises.
            stopped = failure(Exit.INTERRUPTED, "INTERRUPTED", "stopped by an interrupt")
            raise _told(ctx, stopped) from None
        finally:
            if isinstance(ctx.obj, Session):
                ctx.obj.close()


def _told(ctx: Any, found: Failure) -> typer.Exit:
    as_json = isinstance(ctx.obj, Session) and ctx.obj.as_json
    say(found.as_json() if as_json else found.as_text())
    return typer.Exit(int(found.code))


def _of_engine(error: EngineError) -> Failure:
    code = BY_STATUS.get(error.status, Exit.FAILED)
    found = failure(code, error.code, error.detail, error.next_step)
    found.document["context"] = dict(error.context)
    return found


app = typer.Typer(
    cls=Root,
    help="Durable operations for KVM/libvirt clusters.",
    no_args_is_help=True,
    # Its tracebacks would print local variables, and secrets among them.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not logged in, 5 denied, "
    "6 conflict, 7 wait timed out, 8 cancelled, 9 needs attention, 11 engine unreachable, "
    "130 interrupted.",
)

for name, noun in zip(
    OBJECTS,
    (cluster, network, host, vm, affinity, batch, op, incident, fence, approval, event, audit),
    strict=True,
):
    app.add_typer(noun.app, name=name)
app.add_typer(lab.app, name="lab")
app.add_typer(token.app, name="token")
app.add_typer(db.app, name="db")
app.add_typer(simulate.app, name="simulate")


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="HOLDFAST_URL", help="Where the engine is.", metavar="URL")
    ] = None,
) -> None:
    """Durable operations for KVM/libvirt clusters."""
    session = ctx.ensure_object(Session)
    session.url = url


@app.command()
def up(
    fleet: Annotated[
        str,
        typer.Option(
            help="Virtual hosts and VMs in place of real ones, such as sim:hosts=5,vms=40.",
            metavar="SPEC",
        ),
    ] = "",
    monitors: Annotated[
        int | None, typer.Option(help="Monitors on this machine; 1 by default.", min=1, max=16)
    ] = None,
) -> None:
    """Run the whole engine on this machine until Ctrl-C."""
    from cli.up import run_up

    run_up(fleet, monitors)


@app.command()
def demo(
    fleet: Annotated[
        bool, typer.Option("--fleet", help="On virtual hosts, also where real ones can be made.")
    ] = False,
) -> None:
    """Build a data centre in a box, cut a host's power, watch its VMs return."""
    from cli.demo import run_demo

    run_demo(fleet=fleet)


class Queue(StrEnum):
    """The task queues."""

    OPERATIONS = "operations"
    FENCING = "fencing"


def _run_role(role: str) -> None:
    from cli.processes import run_role

    run_role(role)


@app.command()
def api() -> None:
    """Serve the REST API."""
    _run_role("api")


@app.command()
def worker(
    queue: Annotated[Queue, typer.Option(help="Which steps to run.")] = Queue.OPERATIONS,
) -> None:
    """Run workflows and steps, or the steps that touch power controllers."""
    _run_role("worker" if queue is Queue.OPERATIONS else "fencing")


@app.command()
def monitor() -> None:
    """Watch the hosts."""
    _run_role("monitor")


@app.command()
def relay() -> None:
    """Start what was left behind, and number the events."""
    _run_role("relay")


def main() -> None:
    """The program's entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without our signs shall still show the words.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    app(prog_name="holdfast")


if __name__ == "__main__":
    main()

"""`holdfast simulate`: the engine's own code against a virtual data centre, in virtual time.

Needs no running engine and changes none. The commands import their parts when they are called.
"""

import typer

from cli.simulate_run import replay, run
from cli.simulate_scenario import scenario
from cli.simulate_what_if import export, what_if

app = typer.Typer(
    help="Run the engine's real code in virtual time, against faults of every kind.",
    no_args_is_help=True,
)
app.command("run")(run)
app.command("replay")(replay)
app.command("scenario")(scenario)
app.command("export")(export)
app.command("what-if")(what_if)

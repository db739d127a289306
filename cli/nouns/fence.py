"""`holdfast fence`: power controllers, the only proof that a silent host is off.

A secret comes from a prompt, an environment variable or standard input, and is named on the
command line without its value: arguments can be read by every user of the machine.
"""

import os
import sys
from typing import Annotated, Any

import typer

from cli.failures import Exit, Json, failure
from cli.nouns.devices import rehearsed, tested
from cli.nouns.host import HostName
from cli.nouns.shared import VersionOption, change
from cli.render import clock, lasting, print_json, print_table
from cli.session import Act, Session, actions, queries
from cli.values import duration_s

app = typer.Typer(help="Fence devices: power controllers of hosts.", no_args_is_help=True)

LOOKS_SECRET = ("pass", "secret", "token", "_key")
"""Options whose value would be stored and shown in clear text, and stand in the argument list."""

LevelOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=9, help="Levels are tried in order; all devices of one have to read off."
    ),
]
DelayOption = Annotated[
    float | None,
    typer.Option(parser=duration_s, metavar="DURATION", help="How long to wait before off."),
]
RetriesOption = Annotated[
    int | None, typer.Option(min=0, max=9, help="How often to ask again without an answer.")
]
PowerOption = Annotated[
    bool | None,
    typer.Option(
        "--shares-power/--own-supply",
        help="Whether it falls silent when the host loses its supply, as a BMC usually does.",
    ),
]


@app.command("list")
@queries
def list_(
    session: Session,
    host: Annotated[str | None, typer.Option(help="Only those of this host.")] = None,
) -> None:
    """List fence devices, without their secrets.

    HOST BUDGET is the longest that a fence of the device's host may take, over all its levels.
    """
    host_id = None if host is None else session.api.find("host", host)["id"]
    found = session.api.all("/fence-devices", host_id=host_id)
    if session.as_json:
        return print_json(found)
    rows = [
        (
            item["name"],
            item["host_name"],
            item["level"],
            item["agent"],
            item["last_reading"],
            clock(item["last_read_at"]),
            tested(item),
            rehearsed(item),
            lasting(item["deadline_s"]),
            lasting(item["delay_s"]) if item["delay_s"] else "-",
            item["retries"],
            "shared" if item["shares_power"] else "own",
            lasting(item["host_budget_s"]),
            " ".join(f"{key}={value}" for key, value in sorted(item["options"].items())),
        )
        for item in found
    ]
    read = ("LAST READING", "READ AT", "TEST", "REHEARSAL", "DEADLINE", "DELAY", "RETRIES", "POWER")
    header = ("NAME", "HOST", "LEVEL", "AGENT", *read, "HOST BUDGET", "OPTIONS")
    return print_table(header, rows, empty="no fence devices; add one with `holdfast fence add`")


@app.command()
@actions
def add(
    act: Act,
    host: HostName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new device's name.")],
    agent: Annotated[str, typer.Option(help="The fence agent, such as fence_ipmilan.")],
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the agent; not for secrets."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret option; its value is asked for."),
    ] = None,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VARIABLE", help="A secret option, read from a variable."),
    ] = None,
    secret_stdin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A secret option, read from standard input."),
    ] = None,
    deadline: Annotated[
        float,
        typer.Option(parser=duration_s, metavar="DURATION", help="How long an answer may take."),
    ] = "10s",  # type: ignore[assignment]  # the parser turns the default into seconds, too
    level: LevelOption = None,
    delay: DelayOption = None,
    retries: RetriesOption = None,
    shares_power: PowerOption = None,
) -> None:
    """Give a host a power controller.

    Example: holdfast fence add h1 h1-bmc --agent fence_ipmilan --option ip=10.0.0.1 --option
    username=admin --option lanplus=1 --secret password
    """
    options = _options(option)
    secrets = _secrets(secret or [], secret_env or [], secret_stdin)
    body = {
        "host_id": act.api.find("host", host)["id"],
        "name": name,
        "agent": agent,
        "options": options,
        "secrets": secrets,
        "deadline_s": deadline,
    }
    place = {"level": level, "delay_s": delay, "retries": retries}
    said: Json = {key: value for key, value in place.items() if value}
    if shares_power is not None:
        said["shares_power"] = shares_power
    act.run("/fence-devices", body | said)


DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help="Name or id of a fence device.")]


@app.command()
@actions
def edit(
    act: Act,
    device: DeviceName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    agent: Annotated[str | None, typer.Option(help="Another fence agent.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option to set; not for secrets."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An option to take away.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret to set; its value is asked for."),
    ] = None,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VARIABLE", help="A secret to set, read from a variable."),
    ] = None,
    secret_stdin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A secret to set, read from standard input."),
    ] = None,
    without_secret: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A secret to take away.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(parser=duration_s, metavar="DURATION", help="How long an answer may take."),
    ] = None,
    level: LevelOption = None,
    delay: DelayOption = None,
    retries: RetriesOption = None,
    shares_power: PowerOption = None,
    version: VersionOption = None,
) -> None:
    """Change a power controller; options and secrets that are not named stay.

    Example: holdfast fence edit h1-bmc --option ip=10.0.0.9 --without lanplus --secret password
    """
    options = dict.fromkeys(without or ()) | _options(option)
    given = _secrets(secret or [], secret_env or [], secret_stdin)
    secrets = dict.fromkeys(without_secret or ()) | given
    wanted: dict[str, Any] = {"name": name, "agent": agent, "deadline_s": deadline}
    wanted |= {"options": options or None, "secrets": secrets or None}
    wanted |= {"level": level, "delay_s": delay, "retries": retries, "shares_power": shares_power}
    change(act, "/fence-devices", act.api.find("fence device", device), wanted, version)


@app.command("test")
@actions
def check(
    act: Act,
    host: HostName,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Switch the host off and on, too: it is in maintenance."),
    ] = False,
) -> None:
    """Ask each fence device of a host for its status, and which machine it manages.

    Nothing is switched. Fails when a device does not answer, manages another machine than the
    host, or reads off while the host answers.

    With --rehearse a host in maintenance is then switched off and on again through each level of
    its devices, which shows whose power they cut.
    """
    found = act.api.find("host", host)
    act.run(f"/hosts/{found['id']}/actions/{'rehearse' if rehearse else 'test'}-fencing", {})


@app.command()
@actions
def remove(act: Act, device: DeviceName, version: VersionOption = None) -> None:
    """Take a power controller away; without any, a host's death cannot be proven."""
    found = act.api.find("fence device", device)
    act.remove(f"/fence-devices/{found['id']}", version or found["version"])


def _options(given: list[str] | None) -> dict[str, str | None]:
    options: dict[str, str | None] = dict(_pair(text, "--option") for text in given or ())
    if shown := sorted(key for key in options if any(part in key for part in LOOKS_SECRET)):
        raise failure(
            Exit.USAGE,
            "SECRET_IN_ARGUMENTS",
            f"{', '.join(shown)} looks like a secret; arguments can be read by every user here",
            next_step=f"use --secret {shown[0]} and be asked for it, --secret-env or "
            "--secret-stdin, and change the secret if it was a real one",
        )
    return options


def _secrets(asked: list[str], from_env: list[str], from_stdin: str | None) -> dict[str, str]:
    variables = dict(_pair(text, "--secret-env") for text in from_env)
    names = [*asked, *variables, *((from_stdin,) if from_stdin else ())]
    for name in names:
        _refuse_value(name)
    if len(set(names)) < len(names):
        raise failure(Exit.USAGE, "SECRET_NAMED_TWICE", "a secret is named more than once")
    found = {name: _from_env(variable) for name, variable in variables.items()}
    if from_stdin:
        found[from_stdin] = _from_stdin(from_stdin)
    return found | {name: _from_prompt(name) for name in asked}


def _refuse_value(name: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise failure(
            Exit.USAGE,
            "SECRET_IN_ARGUMENTS",
            "only the name of a secret goes on the command line, never its value",
            next_step="use --secret NAME and be asked for it, --secret-env NAME=VARIABLE or "
            "--secret-stdin NAME, and change the secret if it was a real one",
        )


def _from_env(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        # The text is not repeated: it may be the secret itself, put there by mistake.
        raise failure(
            Exit.USAGE,
            "SECRET_MISSING",
            "a variable named by --secret-env is not set, or empty",
            next_step="export it, or use --secret NAME and be asked",
        )
    return value


def _from_stdin(name: str) -> str:
    value = sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise failure(
            Exit.USAGE, "SECRET_MISSING", f"standard input has no line with the secret {name}"
        )
    return value


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _from_prompt(name: str) -> str:
    if not on_terminal():
        raise failure(
            Exit.USAGE,
            "SECRET_MISSING",
            f"nobody can be asked for {name}: standard input is no terminal",
            next_step=f"use --secret-env {name}=VARIABLE or --secret-stdin {name}",
        )
    value: str = typer.prompt(name, hide_input=True, err=True)
    return value


def _pair(text: str, option: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise typer.BadParameter(f"{option} is written NAME=VALUE", param_hint=option)
    return key, value

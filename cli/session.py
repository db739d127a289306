"""What every command starts from: the engine, the way to print, and the options they share.

`queries` and `actions` turn a plain function into a command: its first parameter is filled with a
`Session` or an `Act`, and the options that belong to it are added to the command's own.
"""

import inspect
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.failures import Exit, Failure, Json, failure, of_operation
from cli.progress import Progress
from cli.render import print_json, print_line
from cli.values import duration_s

if TYPE_CHECKING:
    import httpx2

    from cli.client import Api
    from cli.keep_trying import KeepTrying

T = TypeVar("T")

DEFAULT_WAIT = "10m"


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


@dataclass
class Session:
    """One run of this program; `transport` is for tests."""

    url: str | None = None
    output: Output = Output.TABLE
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: "httpx2.BaseTransport | None" = None
    pause: Callable[[float], None] | None = None
    monotonic: Callable[[], float] = time.monotonic

    @property
    def as_json(self) -> bool:
        """Whether the API's own JSON is wanted."""
        return self.output is Output.JSON

    @cached_property
    def api(self) -> "Api":
        """The engine; looked for at the first use."""
        from cli.client import Api, pause
        from cli.endpoint import find_endpoint

        return Api(find_endpoint(self.url, self.env), self.transport, self.pause or pause)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "api" in self.__dict__:
            self.api.close()


@dataclass(frozen=True)
class Act:
    """An action about to be asked for, and how to go on once it is accepted."""

    session: Session
    wait: bool
    timeout: float
    reason: str
    idempotency_key: str
    progress: Progress
    trying: "KeepTrying | None" = None
    """Asks again while the engine is away; None: an engine that is away is told at once."""

    @property
    def api(self) -> "Api":
        """The engine."""
        return self.session.api

    def kept_up(self, limit_s: float) -> "Act":
        """The same, asking again for `limit_s` while the engine or its database is away.

        Only for what may as well arrive later: whoever asked may have gone home by then.
        """
        from cli.client import pause
        from cli.keep_trying import KeepTrying

        hidden = self.progress is Progress.AUTO and self.session.as_json
        trying = KeepTrying(
            limit_s,
            quiet=hidden or self.progress is Progress.NONE,
            pause=self.session.pause or pause,
            monotonic=self.session.monotonic,
        )
        return replace(self, trying=trying)

    def asked(self, ask: Callable[[], T]) -> T:
        """The answer to `ask`, which may be asked again."""
        return ask() if self.trying is None else self.trying(ask)

    def run(self, path: str, body: Json) -> None:
        """Ask for the action, wait if wanted, print; Failure unless it succeeded."""
        self._run("POST", path, body)

    def edit(self, path: str, body: Json, version: int) -> None:
        """The same for a change of the object at `path`, if it is still at this version."""
        self._run("PATCH", path, body, version)

    def remove(self, path: str, version: int) -> None:
        """The same for its removal."""
        self._run("DELETE", path, None, version)

    def set_going(self, path: str, body: Json, other: str) -> None:
        """Ask for an action that sets another operation going, and go on with that one."""
        self._accepted("POST", path, body, self._key(), None)
        self._go_on(self.api.get(other))

    def _run(self, method: str, path: str, body: Json | None, version: int | None = None) -> None:
        self._go_on(self._accepted(method, path, body, self._key(), version))

    def _key(self) -> str:
        return self.idempotency_key or str(uuid.uuid4())

    def _go_on(self, operation: Json) -> None:
        if not self.wait:
            if self.session.as_json:
                print_json(operation)
            else:
                print_line(operation["id"])
            return
        follow(self.session, operation, self.progress, self.timeout)

    def _accepted(
        self, method: str, path: str, body: Json | None, key: str, version: int | None
    ) -> Json:
        headers = {"Idempotency-Key": f'"{key}"'}
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        if reason := " ".join(self.reason.split()):
            headers["X-Reason"] = reason
        again = f"the same command with --idempotency-key {key} asks once more, and acts only once"
        try:
            accepted: Json = self.asked(lambda: self.api.ask(method, path, body, headers))
        except KeyboardInterrupt:
            raise failure(
                Exit.INTERRUPTED,
                "INTERRUPTED",
                "the action may or may not have been accepted",
                next_step=again,
                idempotency_key=key,
            ) from None
        except Failure as found:
            if found.document["context"].get("request_may_have_arrived"):
                found.document["detail"] += "; the action may or may not have been accepted"
                found.document["next_step"] = again
            raise
        return accepted


def follow(session: Session, operation: Json, progress: Progress, timeout_s: float) -> None:
    """Watch an operation to its end and print it; Failure unless it succeeded."""
    from cli.client import pause
    from cli.progress import Silent
    from cli.watch import Watch, screen_for

    screen = screen_for(progress, session.api, as_json=session.as_json)
    if operation["done"]:
        screen = Silent()
    ended = Watch(session.api, screen, timeout_s, session.pause or pause).until_done(operation)
    if session.as_json:
        print_json(ended)
    if ended["state"] != "succeeded":
        raise of_operation(ended)
    if not session.as_json:
        summary = f": {ended['summary']}" if ended["summary"] else ""
        print_line(f"{ended['kind']} {ended['target_name']} succeeded{summary}")


def _choose_output(ctx: typer.Context, value: Output) -> Output:
    # Remembered at once, so that a failure in the command knows how to print itself.
    if isinstance(ctx.obj, Session):
        ctx.obj.output = value
    return value


def _checked_key(value: str) -> str:
    if not all("!" <= sign <= "~" and sign != '"' for sign in value) or len(value) > 128:
        raise typer.BadParameter("a key is at most 128 visible ASCII characters without quotes")
    return value


OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="How to print.", callback=_choose_output),
]
ProgressOption = Annotated[
    Progress,
    typer.Option("--progress", help="How to show progress; auto: live on a terminal."),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=duration_s,
        metavar="DURATION",
        help="How long to wait, such as 90, 90s, 10m or 2h; the operation goes on after that.",
    ),
]

QUERY_OPTIONS: dict[str, tuple[Any, Any]] = {"output": (OutputOption, Output.TABLE)}
ACTION_OPTIONS: dict[str, tuple[Any, Any]] = {
    "wait": (
        Annotated[bool, typer.Option(help="Wait for the end, or only print the operation's id.")],
        True,
    ),
    "timeout": (TimeoutOption, DEFAULT_WAIT),
    "reason": (Annotated[str, typer.Option(help="Why; kept with the operation.")], ""),
    "idempotency_key": (
        Annotated[
            str,
            typer.Option(
                callback=_checked_key,
                help="Makes repeating the command safe; a fresh one by default.",
            ),
        ],
        "",
    ),
    "progress": (ProgressOption, Progress.AUTO),
    **QUERY_OPTIONS,
}


def session_of(ctx: typer.Context) -> Session:
    """The session of this run."""
    session: Session = ctx.obj
    return session


def queries(function: Callable[..., None]) -> Callable[..., None]:
    """A command from a function whose first parameter is the `Session`."""
    return _command(function, QUERY_OPTIONS, lambda session, _options: session)


def actions(function: Callable[..., None]) -> Callable[..., None]:
    """A command from a function whose first parameter is the `Act`."""

    def build(session: Session, options: dict[str, Any]) -> Act:
        del options["output"]
        return Act(session, **options)

    return _command(function, ACTION_OPTIONS, build)


def _command(
    function: Callable[..., None],
    options: dict[str, tuple[Any, Any]],
    build: Callable[[Session, dict[str, Any]], Any],
) -> Callable[..., None]:
    @wraps(function)
    def command(ctx: typer.Context, **given: Any) -> None:
        shared = {name: given.pop(name) for name in options}
        function(build(session_of(ctx), shared), **given)

    _first, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, (annotation, default) in options.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command

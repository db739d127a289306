"""What a fleet and the engine's processes say to each other: one line of JSON a message.

A call is named by the method of a port, and the method's own annotations say how its arguments and
its answer are written and read: nothing is called that is no method of a port, and nothing comes
out that has another type. Errors travel as the name of their class with code, detail, next step and
context, and are raised as that class of `domain.errors` at the far end.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from inspect import signature
from typing import Any, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from activities.ports import Claim
from domain.base import Frozen
from domain.errors import EngineError, Invalid, Unavailable

LINE_MAX = 16 * 1024 * 1024
"""Bytes of one message. Higher: garbage takes more memory. Lower: the domains of a host with
thousands of guests would not fit; each takes about 150 bytes."""

Method = Callable[..., Any]


class Asked(Frozen):
    """A call: which method of which port, and its arguments."""

    port: str = Field(max_length=64)
    call: str = Field(max_length=64)
    args: tuple[Any, ...] = ()


class Failed(Frozen):
    """An error of the engine on its way."""

    kind: str
    code: str
    detail: str
    next_step: str = ""
    context: dict[str, str | int | float | None] = Field(default_factory=dict)
    problems: tuple["Failed", ...] = ()


class Answered(Frozen):
    """What a call gave: a value, or an error."""

    value: Any = None
    error: Failed | None = None


class Codec:
    """How the arguments and the answer of one method are written and read."""

    def __init__(self, method: Method) -> None:
        hints = get_type_hints(method)
        # A claim is made at the near end, just before the call is sent.
        names = [n for n in list(signature(method).parameters)[1:] if hints[n] != Claim | None]
        self._args = tuple(TypeAdapter[Any](hints[name]) for name in names)
        opened = get_origin(hints["return"]) is AbstractAsyncContextManager
        # What is opened stays at the far end, and lasts as long as the connection.
        answer = type(None) if opened else hints["return"]
        self._answer = TypeAdapter[Any](answer)

    def write_args(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """As JSON knows them."""
        pairs = zip(self._args, args, strict=True)
        return tuple(adapter.dump_python(arg, mode="json") for adapter, arg in pairs)

    def read_args(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """As the method takes them; Invalid when they do not fit it."""
        if len(args) != len(self._args):
            raise not_understood(f"{len(self._args)} arguments are wanted, {len(args)} came")
        return tuple(_read(adapter, arg) for adapter, arg in zip(self._args, args, strict=True))

    def write_answer(self, answer: Any) -> Any:
        """As JSON knows it."""
        return self._answer.dump_python(answer, mode="json")

    def read_answer(self, answer: Any) -> Any:
        """As the method gives it; Invalid when it is nothing that the method gives."""
        return _read(self._answer, answer)


@cache
def codec(method: Method) -> Codec:
    """Of each method one."""
    return Codec(method)


def _read(adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        # As JSON: only there is a text that names a UUID a UUID where both are allowed.
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise not_understood(str(error.errors()[0]["msg"])) from None


def not_understood(why: str) -> Invalid:
    """The refusal of what is no message, or fits no method."""
    return Invalid("FLEET_MESSAGE_INVALID", f"this is no message for a fleet: {why}")


def written(message: Frozen) -> bytes:
    """One line."""
    return message.model_dump_json().encode() + b"\n"


async def read_line(reader: asyncio.StreamReader) -> bytes | None:
    """One whole line; None when the far end has gone, be it in the middle. Invalid if too long."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise not_understood(f"it has more than {LINE_MAX} bytes") from None
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def read_asked(line: bytes) -> Asked:
    """Invalid for anything else than a call."""
    try:
        return Asked.model_validate_json(line)
    except ValidationError as error:
        raise not_understood(str(error.errors()[0]["msg"])) from None


def read_answered(line: bytes) -> Answered:
    """Invalid for anything else than an answer."""
    try:
        return Answered.model_validate_json(line)
    except ValidationError as error:
        raise not_understood(str(error.errors()[0]["msg"])) from None


# Errors


def failed(error: EngineError) -> Failed:
    """An error as it travels."""
    return Failed(
        kind=type(error).__name__,
        code=error.code,
        detail=error.detail,
        next_step=error.next_step,
        context=error.context,
        problems=tuple(failed(problem) for problem in error.problems),
    )


def rebuilt(told: Failed) -> EngineError:
    """The same error here; one of a class that nobody knows here is Unavailable."""
    kind = ERRORS.get(told.kind, Unavailable)
    error = kind(told.code, told.detail, next_step=told.next_step)
    error.context = dict(told.context)
    error.problems = tuple(rebuilt(problem) for problem in told.problems)
    return error


def _kinds(kind: type[EngineError]) -> Iterator[type[EngineError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


ERRORS = {kind.__name__: kind for kind in _kinds(EngineError) if kind.__module__ == "domain.errors"}

"""Why a command ends without success: exit codes, and problems told to a person or a program.

A problem has the shape of the API's problem documents (RFC 9457), whether it came from the engine
or arose here, so that a script reads one shape. Scripts depend on the exit codes: a number never
changes its meaning.
"""

import json
from enum import IntEnum
from typing import Any

from cli.terminal import clean

Json = dict[str, Any]


class Exit(IntEnum):
    """What a command's end means."""

    OK = 0
    FAILED = 1  # also: the operation failed
    USAGE = 2  # the command or the request itself is wrong
    NOT_FOUND = 3
    NOT_LOGGED_IN = 4
    DENIED = 5
    CONFLICT = 6
    STILL_RUNNING = 7  # the wait timed out; the operation goes on
    CANCELLED = 8
    NEEDS_ATTENTION = 9  # a person has to choose
    UNREACHABLE = 11
    INTERRUPTED = 130


WORDS = {
    Exit.STILL_RUNNING: "timed out",
    Exit.CANCELLED: "cancelled",
    Exit.NEEDS_ATTENTION: "needs attention",
    Exit.INTERRUPTED: "interrupted",
}

BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.NOT_LOGGED_IN,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.USAGE,
    415: Exit.USAGE,
    422: Exit.USAGE,
    428: Exit.CONFLICT,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}

BY_STATE = {
    "succeeded": Exit.OK,
    "cancelled": Exit.CANCELLED,
    "needs_attention": Exit.NEEDS_ATTENTION,
}
"""How an operation that has ended ends the command; every other state is a failure."""


class Failure(Exception):
    """A command ends here, with an exit code and a problem.

    `hint` replaces the problem's next step where this program knows more than the engine.
    """

    def __init__(self, code: Exit, document: Json, hint: str = "") -> None:
        super().__init__(f"{document.get('code')}: {document.get('detail')}")
        self.code = code
        self.document = document
        self.hint = hint

    def as_json(self) -> str:
        """The problem document."""
        return json.dumps(self.document, indent=2)

    def as_text(self) -> str:
        """What, why and what next: the last line is the most useful one."""
        document = self.document
        word = WORDS.get(self.code, "error")
        lines = [f"{word}: {clean(document.get('detail'))} ({clean(document.get('code'))})"]
        if document.get("correlation_id"):
            lines.append(f"  correlation id {clean(document['correlation_id'])}")
        if step := self.hint or document.get("next_step"):
            lines.append(f"  next: {clean(step)}")
        return "\n".join(lines)


def failure(code: Exit, name: str, detail: str, next_step: str = "", **context: Any) -> Failure:
    """A problem that arose in this program: `name` is its UPPER_SNAKE code."""
    document: Json = {
        "type": "about:blank",
        "title": code.name.replace("_", " ").capitalize(),
        "status": None,
        "code": name,
        "detail": detail,
        "next_step": next_step,
        "instance": "",
        "retryable": code in (Exit.STILL_RUNNING, Exit.INTERRUPTED, Exit.UNREACHABLE),
        "correlation_id": None,
        "context": context,
        "errors": [],
    }
    return Failure(code, document)


def of_operation(operation: Json) -> Failure:
    """The failure that an operation which did not succeed stands for."""
    code = BY_STATE.get(operation["state"], Exit.FAILED)
    known: Json = operation.get("problem") or {}
    told = operation.get("summary") or f"{operation['kind']} ended as {operation['state']}"
    show = f"holdfast op show {operation['id']}"
    found = failure(
        code,
        known.get("code") or operation.get("reason_code") or f"OPERATION_{operation['state']}",
        f"{operation['kind']} {operation['target_name']}: {known.get('detail') or told}",
        next_step=known.get("next_step") or show,
    )
    found.document |= {
        "code": str(found.document["code"]).upper(),
        "instance": f"/api/v1/operations/{operation['id']}",
        "retryable": bool(known.get("retryable")),
        "correlation_id": operation.get("correlation_id"),
        "context": {**(known.get("context") or {}), "operation_id": operation["id"]},
    }
    return found

"""Every way the engine says no, as one tree.

EngineError
├── Refused        asking again cannot help; something else has to change first
│   ├── Invalid        the request itself is wrong                       422
│   ├── NotFound       no such object                                    404
│   ├── Conflict       the object is in a state that forbids it          409
│   ├── Denied         not allowed to this principal                     403
│   └── Superseded     a newer generation owns this object; stop         409
└── Unavailable    asking again may help                                 503
    ├── NoAnswer       a peer did not answer before its deadline
    └── OutcomeUnknown a mutating call was sent and its answer was lost

A code (UPPER_SNAKE) never changes its meaning: scripts depend on it. `detail` says what and with
which numbers, `next_step` what the reader can do about it, `context` repeats every variable.
"""

from typing import ClassVar


class EngineError(Exception):
    """The engine could not do what was asked."""

    retryable: ClassVar[bool] = False
    status: ClassVar[int] = 500

    def __init__(
        self, code: str, detail: str, *, next_step: str = "", **context: str | int | float | None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.next_step = next_step
        self.context = context
        self.problems: tuple[EngineError, ...] = ()


class Refused(EngineError):
    """Asking again cannot help."""

    status = 409


class Invalid(Refused):
    """The request itself is wrong."""

    status = 422


class NotFound(Refused):
    """There is no such object."""

    status = 404


class Conflict(Refused):
    """The object is in a state that forbids this."""


class Denied(Refused):
    """This principal may not do that."""

    status = 403


class Superseded(Refused):
    """A newer generation owns this object; this one must stop."""


class Unavailable(EngineError):
    """Asking again may help."""

    retryable = True
    status = 503


class NoAnswer(Unavailable):
    """A peer did not answer before its deadline; nothing is known about it."""


class OutcomeUnknown(Unavailable):
    """A mutating call was sent and its answer was lost: look before trying again."""

"""What a driver's error means: a lost race, a database that is away, or neither.

The drivers of SQLite, PostgreSQL and MariaDB have words of their own for the same troubles; nothing
else in the engine knows them.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from domain.errors import Conflict, EngineError, Unavailable

TRIES = 12
"""Higher: a hot row makes a request slow. Lower: a burst on one host's row fails requests."""

KEY_TRIES = 3
"""Tries after which a taken unique key is no race any more. Higher: a defect of ours that breaks
one each time holds its request up longer."""

RETRY_STATES = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATE of serialisation failure, deadlock and lock time-out (PostgreSQL, appendix A)."""

RETRY_NUMBERS = frozenset({1020, 1205, 1213})
"""MariaDB's numbers for: the row has changed, the lock time-out, the deadlock."""

CHAIN_MAX = 10
"""Errors of one chain that are looked at: more than any has, and an end where one is a circle."""

LOCK_TIMEOUTS = frozenset({"55P03", 1205})

DUPLICATE = 1062
"""MariaDB's number for a unique key that is taken."""

CHECK_FAILED = 4025
"""MariaDB's number for a violated CHECK."""

DOWN_STATES = ("08", "28", "3D", "53", "57")
"""Classes of SQLSTATE: no connection, no access, no such database, no resources, shut down."""

DOWN_NUMBERS = frozenset({1040, 1044, 1045, 1049, 1053, 1203, 1927, 2002, 2003, 2006, 2013, 2014})
"""The same as MariaDB counts them, with the client's own (2000 and up)."""

TROUBLE = (DBAPIError, sa.exc.TimeoutError, TimeoutError, OSError)
"""What a driver or a pool raises; `translated` says what it means."""


def lost_race(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again."""
    return any(key_taken(one) or _collided(one) for one in _chain(error))


def key_taken(error: BaseException) -> bool:
    """Whether a unique key was taken between look and insert: the next try sees the winner's row.

    A statement that breaks the key by itself looks the same, and does so at every try.
    """
    if not isinstance(error, DBAPIError):
        return False
    if number(error) == DUPLICATE:
        return True
    return isinstance(error, IntegrityError) and "unique" in str(error.orig).lower()


def _collided(error: DBAPIError) -> bool:
    if number(error) in RETRY_NUMBERS or _state(error) in RETRY_STATES:
        return True
    return not isinstance(error, IntegrityError) and "database is locked" in str(error.orig)


def _chain(error: BaseException) -> Iterator[DBAPIError]:
    """A driver's error, and those that it was raised in the handling of.

    A deadlock takes MariaDB's savepoints with it: rolling back to one then fails by itself, and
    only the context still tells of the deadlock.
    """
    found: BaseException | None = error if isinstance(error, DBAPIError) else None
    for _ in range(CHAIN_MAX):
        if found is None:
            return
        if isinstance(found, DBAPIError):
            yield found
        found = found.__context__


def lock_timed_out(error: BaseException) -> bool:
    """Whether a server gave up waiting for a row that somebody else holds."""
    return isinstance(error, DBAPIError) and bool(LOCK_TIMEOUTS & {_state(error), number(error)})


def translated(error: BaseException) -> BaseException:
    """The `EngineError` that says what a driver's error means, or the error itself."""
    if isinstance(error, sa.exc.TimeoutError):
        return busy("no connection was free in time")
    if isinstance(error, DBAPIError):
        return down(error) if _means_down(error) else error
    return down(error) if isinstance(error, TimeoutError | OSError) else error


def down(error: BaseException) -> Unavailable:
    """The database cannot be reached."""
    cause = getattr(error, "orig", None) or error
    return Unavailable(
        "DATABASE_UNAVAILABLE",
        f"the database does not answer: {str(cause)[:300] or type(cause).__name__}",
        next_step="nothing was changed; try again when the database is back",
    )


def busy(detail: str, tries: int = TRIES) -> Unavailable:
    """Others were quicker, again and again."""
    return Unavailable("DATABASE_BUSY", detail, next_step="try again", tries=tries)


def read_only(statement: str) -> EngineError:
    """A write was asked for where only reading is possible."""
    return Conflict(
        "TRANSACTION_READ_ONLY",
        f"a reading transaction cannot run: {statement[:60]}",
        next_step="open the outer transaction with write(), or use REQUIRES_NEW",
    )


def _means_down(error: DBAPIError) -> bool:
    known = number(error)
    if error.connection_invalidated or known in DOWN_NUMBERS:
        return True
    if known is not None:
        return False
    return isinstance(error, OperationalError) or _state(error).startswith(DOWN_STATES)


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", "") or "")


def number(error: DBAPIError) -> int | None:
    """MariaDB's number for an error; None on the others."""
    first = next(iter(getattr(error.orig, "args", ())), None)
    return first if isinstance(first, int) and not isinstance(first, bool) else None

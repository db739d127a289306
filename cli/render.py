"""Objects as tables and facts for people, or as the API's own JSON for programs.

JSON is what the API answered, unchanged. A table is cut to no width: what is piped must not lose
its end.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from cli.terminal import clean, painted, wants_colour

Row = Sequence[Any]


def print_json(value: Any) -> None:
    """The API's answer, unchanged."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(header: Sequence[str], rows: Iterable[Row], *, empty: str = "none") -> None:
    """Aligned columns under a header; a table without rows says so on standard error."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        sys.stderr.write(f"{empty}\n")
        return
    colour = wants_colour(sys.stdout)
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    sys.stdout.write(_aligned(list(header), widths, colour=False) + "\n")
    for line in lines:
        sys.stdout.write(_aligned(line, widths, colour=colour) + "\n")


def _aligned(line: list[str], widths: list[int], *, colour: bool) -> str:
    padded = [word.ljust(width) for word, width in zip(line, widths, strict=True)]
    padded[-1] = line[-1]
    if colour:
        padded = [painted(shown, word) for shown, word in zip(padded, line, strict=True)]
    return "  ".join(padded).rstrip()


def print_facts(facts: Iterable[tuple[str, Any]], indent: str = "") -> None:
    """Name and value, one a line; a value that is None is left out."""
    known = [(name, _cell(value)) for name, value in facts if value is not None]
    width = max((len(name) for name, _value in known), default=0)
    colour = wants_colour(sys.stdout)
    for name, value in known:
        shown = painted(value, value) if colour else value
        sys.stdout.write(f"{indent}{name.ljust(width)}  {shown}\n")


def print_line(text: str = "") -> None:
    """One line of data."""
    sys.stdout.write(f"{clean(text)}\n")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(clean(item) for item in value) or "-"
    return clean(value)


def parsed(at: str | None) -> datetime | None:
    """A time of the API, in UTC."""
    return None if at is None else datetime.fromisoformat(at).astimezone(UTC)


def clock(at: str | None) -> str:
    """A time as date and second, in UTC."""
    found = parsed(at)
    return "-" if found is None else f"{found:%Y-%m-%d %H:%M:%S}Z"


def precise(at: str | None) -> str:
    """A time as a time of day with milliseconds, in UTC."""
    found = parsed(at)
    return "-" if found is None else f"{found:%H:%M:%S}.{found.microsecond // 1000:03d}Z"


def ago(at: str | None, now: datetime) -> str:
    """How long ago a time was."""
    found = parsed(at)
    return "never" if found is None else f"{lasting((now - found).total_seconds())} ago"


def lasting(seconds: float | None) -> str:
    """A duration for people: 0.41 s, 12.3 s, 4 min 05 s, 3 h 12 min, 5 d 02 h."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"

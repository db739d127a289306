"""Durations, sizes and ids as people write them on a command line."""

import math
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import typer

UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
UNITS_MIB = {"": 1, "m": 1, "mib": 1, "g": 1024, "gib": 1024, "t": 1024**2, "tib": 1024**2}

MOMENT_MAX_S = 50 * 366 * UNITS_S["d"]


def duration_s(text: str | float) -> float:
    """Seconds of `90`, `90s`, `1.5m`, `2h`, `forever`; typer.BadParameter for anything else."""
    if text == "forever":
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", str(text).strip())
    if match is None or not math.isfinite(float(match[1])):
        raise typer.BadParameter(f"{text} is not a duration: write 90, 90s, 10m or 2h")
    return float(match[1]) * UNITS_S[match[2] or ""]


def moment(text: str | datetime) -> datetime:
    """A time such as `2026-11-22T07:00` (UTC unless it says so), or `2h` for two hours ago."""
    if isinstance(text, datetime):
        return text
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        ago_s = duration_s(text)
        if not ago_s < MOMENT_MAX_S:
            raise typer.BadParameter(f"{text} is too long ago") from None
        return datetime.now(UTC) - timedelta(seconds=ago_s)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def size_mib(text: str | int) -> int:
    """MiB of `512`, `512MiB`, `2G`; typer.BadParameter for anything else."""
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", str(text).strip().lower())
    if match is None or match[2] not in UNITS_MIB:
        raise typer.BadParameter(f"{text} is not a size: write 512 (MiB), 512M or 2G")
    return int(match[1]) * UNITS_MIB[match[2]]


def ratio(text: str | float) -> float:
    """A plain number such as `4` or `1.5`; typer.BadParameter for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", str(text).strip()) is None:
        raise typer.BadParameter(f"{text} is not a ratio: write 4 or 1.5")
    return float(text)


def as_id(text: str) -> str | None:
    """The id that a text is, in the API's spelling; None for everything else."""
    try:
        return str(UUID(text))
    except ValueError:
        return None

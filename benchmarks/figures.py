"""Percentiles, and the one table in which every figure of a run is shown beside its target."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line of the table. `met` is None where there is no target or no measurement."""

    name: str
    value: str
    target: str = ""
    met: bool | None = None
    data: dict[str, float] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def as_json(self) -> dict[str, Any]:
        """The figure as the report keeps it."""
        return asdict(self)


def not_measured(name: str, why: str) -> Figure:
    """The line of something that could not be measured here."""
    return Figure(name, f"not measured: {why}")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return ordered[rank - 1]


def spread(values: Sequence[float], unit: float = 1000.0) -> dict[str, float]:
    """Median, p99 and worst of seconds, in milliseconds unless another unit is named."""
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    figures = {name: round(percentile(values, share) * unit, 2) for name, share in shares.items()}
    return figures | {"runs": float(len(values))}


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table("what", "measured", "target", "met", "load", title="holdfast benchmarks")
    words = {True: "yes", False: "no", None: ""}
    for item in figures:
        table.add_row(item.name, item.value, item.target, words[item.met], f"{item.load:.2f}")
    Console(width=120).print(table)

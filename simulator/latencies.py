"""How long calls into a real data centre took: the table of `python -m benchmarks latencies`.

It lies beside this file as `latencies.json`, and what the simulator draws is held against it
(`simulator.world.latency`). A row tells one action over one protocol; a power controller has two.
"""

from functools import cache
from pathlib import Path

from pydantic import Field

from domain.base import Frozen

FILE = Path(__file__).with_name("latencies.json")


class Measured(Frozen):
    """One action, in seconds. `over` is its protocol where there are several."""

    action: str
    over: str = ""
    p50_s: float = Field(gt=0)
    p95_s: float = Field(gt=0)
    max_s: float = Field(gt=0)
    samples: int = Field(ge=1)
    how: str = Field(min_length=1)


class Table(Frozen):
    """All that was measured in one run, and on what kind of machine."""

    at: str
    cores: int
    load: float  # of the machine over a minute, at its highest while it was measured
    rows: tuple[Measured, ...]

    def of(self, action: str) -> tuple[Measured, ...]:
        """The rows of an action, one a protocol; empty where it was not measured."""
        return tuple(row for row in self.rows if row.action == action)


@cache
def table() -> Table:
    """The table that comes with this code."""
    return Table.model_validate_json(FILE.read_text())

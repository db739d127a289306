"""What must hold: one list, asked by tests after every scenario and by the simulator all the time.

`always`  holds after every transaction: rows alone, of the tables that a transaction has changed.
`quiet`   holds once nothing is under way: rows compared with the world, and what liveness promises.
`watch`   follows one simulation: events of the world at once, transactions as they are committed.
"""

from simulator.invariants.always import ALWAYS
from simulator.invariants.facts import TABLES, Check, Facts, facts_of
from simulator.invariants.quiet import QUIET
from simulator.world.centre import DataCentre

CHECKS: tuple[Check, ...] = (*QUIET, *ALWAYS)

__all__ = ["ALWAYS", "CHECKS", "QUIET", "TABLES", "Check", "Facts", "broken", "facts_of"]


def broken(centre: DataCentre, facts: Facts) -> list[str]:
    """Each broken invariant as `check: sentence`."""
    return [f"{check.__name__}: {why}" for check in CHECKS for why in check(centre, facts)]

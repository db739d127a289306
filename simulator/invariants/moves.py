"""I1 for runs that move: none is closed, or called settled, while either host may say otherwise.

The rows name both hosts until somebody has read them, so what they said before is remembered here:
once a run has left `migrating`, its row names one host only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from domain.inventory import RunState
from simulator.invariants.facts import Row
from simulator.world.centre import DataCentre
from simulator.world.host import VirtualDomain

ARRIVED = "migrated"


@dataclass(frozen=True)
class _Target:
    host_id: UUID
    generation: int


class Moves:
    """Remembers the targets of runs from look to look."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre
        self._targets: dict[UUID, _Target] = {}

    def look(self, rows: list[Row], hosts: dict[UUID, Row]) -> Iterator[str]:
        """A sentence for each run that left its migration and should not have, or not so."""
        for row in rows:
            if row["state"] == RunState.MIGRATING:
                target = _Target(row["target_host_id"], row["target_generation"])
                self._targets[row["id"]] = target
            elif (left := self._targets.pop(row["id"], None)) is not None:
                yield from self._judge(row, left, hosts)

    def _judge(self, row: Row, target: _Target, hosts: dict[UUID, Row]) -> Iterator[str]:
        source = self._running(row["vm_id"], row["host_id"], hosts)
        there = self._running(row["vm_id"], target.host_id, hosts)
        name = hosts[target.host_id]["name"]
        if row["end_reason"] == ARRIVED and (there is None or source is not None):
            yield f"a run is said to have moved to {name}, and its guest has not"
        if row["end_reason"] != ARRIVED and there is not None and not there.by_hand:
            yield f"{there.name} is not said to run on {name}, and does"

    def _running(self, vm_id: UUID, host_id: UUID, hosts: dict[UUID, Row]) -> VirtualDomain | None:
        found = self._centre.hosts[hosts[host_id]["name"]].domains.get(vm_id)
        return found if found is not None and found.alive and not found.held else None

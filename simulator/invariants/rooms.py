"""Whom a recovery stops to make room: by the rows as they are, whatever plan and claim said.

A second, simpler way to say what `store.made_room.claim` says.
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from domain.make_room import MakeRoom
from simulator.invariants.budget import Power
from simulator.stage import Stage

Found = tuple[str, str]


class Rooms:
    """Judges each VM that is to be stopped for another, once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._judged = {row["id"] for row in stage.rows.table("made_room")}

    def look(self, power: Power) -> Iterator[Found]:
        """Judge what a transaction is about to write."""
        rows = self._stage.rows.table("made_room")
        fresh = [row for row in rows if row["id"] not in self._judged]
        if not fresh:
            return
        vms = {row["id"]: row for row in self._stage.rows.table("vm")}
        clusters = {row["id"]: row for row in self._stage.rows.table("cluster")}
        counts: Counter[UUID] = Counter(row["incident_id"] for row in rows)
        for row in fresh:
            self._judged.add(row["id"])
            one, other = vms[row["vm_id"]], vms[row["for_vm_id"]]
            cluster = clusters[one["cluster_id"]]
            what = f"{one['name']} is stopped for {other['name']}"
            self._stage.trace("vm.makes_room", one["name"], room_for=other["name"])
            if one["priority"] >= other["priority"]:
                why = f"whose priority {other['priority']} is not above its {one['priority']}"
                yield "outranked", f"{what}, {why}"
            if cluster["make_room"] != MakeRoom.SHUTDOWN or not one["may_be_stopped"]:
                yield "makes_room", f"{what}, and that is not allowed"
            if counts[row["incident_id"]] > cluster["make_room_max"]:
                yield "makes_room", f"{what}, one too many in this incident"
            if power.disarmed_s is not None:
                yield "disarmed", f"{what} in a disarmed cluster"

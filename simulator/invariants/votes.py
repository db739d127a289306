"""The word of the monitors behind a fence: no power is cut because nobody has looked.

A second, simpler way to say what a judgement rests on. Whether a monitor has written is seen where
it is committed, in virtual time, past every wall clock and every sequence number that is compared.
"""

from collections.abc import Iterator
from math import inf
from typing import Any
from uuid import UUID

from domain.operations import parse_workflow_id
from domain.profiles import TIMINGS, Profile
from domain.recovery import Move
from simulator.invariants.facts import Row
from simulator.loop import CURRENT
from simulator.stage import Stage
from simulator.tried import LEFT, TRIED

Found = tuple[str, str]

LATE_S = 3.0
"""Between two rounds of a monitor that the database took at once: a poll and what it waits for."""


class Votes:
    """Remembers when a monitor wrote and heard last, and since when each incident is judged."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rounds = 0  # written by monitors so far
        # Tries of judging that have begun and not ended, by operation, process and step.
        # When, and behind how many rounds: both may be written in one instant.
        self._began: dict[UUID, dict[tuple[str, str], tuple[float, int]]] = {}
        self._decided: dict[UUID, str] = {}  # by incident: when its facts began to be read
        self._judged_s: dict[tuple[UUID, int], float] = {}  # by host and epoch: the same
        self._answers: dict[tuple[UUID, str], int] = {}  # by host and monitor: round answered last
        self._heard_s: dict[UUID, float] = {}  # by host: when that was another one
        self._heard_by_s: dict[tuple[UUID, str], float] = {}  # by host and monitor: the same
        self._wrote: dict[str, tuple[int, float]] = {}  # by monitor: its newest round, and when

    def happened(self, at_s: float, kind: str, facts: dict[str, Any]) -> None:
        """Take up one event."""
        if kind not in (TRIED, LEFT):
            return
        owner = parse_workflow_id(facts["workflow"])
        if owner is None:
            return
        tries = self._began.setdefault(owner[0], {})
        which = (facts["process"], facts["step"])
        if kind == TRIED:
            tries[which] = (at_s, self._rounds)
        else:
            tries.pop(which, None)

    def look(self, tables: frozenset[str]) -> list[Found]:
        """Judge what a transaction is about to decide or to claim."""
        late = self._late() if "monitor" in tables else {}
        if "observation" in tables:
            self._listen(late)
        found: list[Found] = []
        if "incident" in tables:
            decided = self._stage.rows.table(
                "incident",
                "decision IS NOT NULL",
                columns=("id", "host_id", "epoch", "operation_id", "decision"),
            )
            for incident in decided:
                found += self._decision(incident)
        return found

    def _late(self) -> dict[str, float]:
        """Monitors whose round comes long after the one before it, and when that one came.

        While the database was away they went on, and what they write now they heard at any time
        since then.
        """
        self._rounds += 1
        now_s, late = self._stage.loop.time(), {}
        for row in self._stage.rows.table("monitor", columns=("name", "sequence")):
            sequence, wrote_s = self._wrote.get(row["name"], (None, now_s))
            if row["sequence"] == sequence:
                continue
            if now_s - wrote_s > LATE_S:
                late[row["name"]] = wrote_s
            self._wrote[row["name"]] = (row["sequence"], now_s)
        return late

    def _listen(self, late: dict[str, float]) -> None:
        for row in self._stage.rows.table("observation", "heard_sequence IS NOT NULL"):
            key, heard = (row["host_id"], row["monitor"]), row["heard_sequence"]
            if self._answers.get(key) != heard:
                self._answers[key] = heard
                self._heard_s[row["host_id"]] = self._stage.loop.time()
                self._heard_by_s[key] = late.get(row["monitor"], self._stage.loop.time())

    def _decision(self, incident: Row) -> list[Found]:
        decision = incident["decision"]
        if self._decided.get(incident["id"]) == decision["at"]:
            return []
        self._decided[incident["id"]] = decision["at"]
        tries = self._tries(incident["operation_id"])
        if not tries:
            return []
        began_s, rounds = zip(*tries, strict=True)
        self._judged_s[incident["host_id"], incident["epoch"]] = max(began_s)
        if decision["move"] != Move.FENCE:
            return []
        found = list(self._just_heard(incident))
        if self._rounds <= min(rounds):
            found.append(("votes", f"the fence of {self._name(incident)} rests on old votes"))
        return found

    def _just_heard(self, incident: Row) -> Iterator[Found]:
        """Whom a fence rests on has not heard the host for about as long as its profile asks for.

        Half of it: what a monitor hears is written a little later.
        """
        now_s, least_s = self._stage.loop.time(), self._limit_s(incident["host_id"]) / 2
        for monitor in incident["decision"]["eyes"]:
            ago_s = now_s - self._heard_by_s.get((incident["host_id"], monitor), -inf)
            if ago_s < least_s:
                why = f"rests on {monitor}, which heard it {ago_s:.1f} s ago"
                yield "votes", f"the fence of {self._name(incident)} {why}"

    def _limit_s(self, host_id: UUID) -> float:
        clusters = {row["id"]: row["profile"] for row in self._stage.rows.table("cluster")}
        hosts = {row["id"]: row["cluster_id"] for row in self._stage.rows.table("host")}
        profile = clusters[hosts[host_id]]
        return TIMINGS[Profile(profile)].non_responsive_after_s

    def _tries(self, operation_id: UUID) -> list[tuple[float, int]]:
        """When the tries began of which one has decided: those of the process that writes.

        One that the server has given up, and its successor, may be at work in it side by side.
        """
        who = CURRENT.get()
        tries = self._began.get(operation_id, {})
        return [began for (process, _), began in tries.items() if who and process == who.title]

    def claimed(self, claim: Row) -> list[Found]:
        """Judge one claim of a fence: whoever was heard since it was decided on is not cut."""
        since_s = self._judged_s.get((claim["host_id"], claim["epoch"]))
        if since_s is None or self._heard_s.get(claim["host_id"], since_s) <= since_s:
            return []
        return [("heard", f"the fence of {self._name(claim)} was claimed after it was heard")]

    def _name(self, row: Row) -> str:
        hosts = {host["id"]: host["name"] for host in self._stage.rows.table("host")}
        return str(hosts[row["host_id"]])

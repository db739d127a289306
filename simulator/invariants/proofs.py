"""I2, I3 and I8 at the commits that decide: what a run, a certificate or a claim rests on.

A second, simpler way to say what the store's statements say, with the world beside it.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from domain.disarming import DisarmMode
from domain.inventory import RunState
from domain.operations import OperationState
from simulator.invariants.boots import Boots
from simulator.invariants.budget import Power
from simulator.invariants.facts import OPEN, Row
from simulator.invariants.moves import Moves
from simulator.invariants.votes import Votes
from simulator.stage import Stage

Found = tuple[str, str, str | None]

STARTED_BEFORE_S = 60.0
"""How long after disarming a start that was decided on before may still begin."""


LOOKED_AT: dict[str, tuple[str, ...]] = {
    "vm_run": (
        *("id", "vm_id", "host_id", "epoch", "generation", "state", "active"),
        *("operation_id", "incident_id", "end_reason", "target_host_id", "target_generation"),
    ),
    "death_certificate": ("id", "host_id", "epoch", "incident_id", "state"),
    "incident": ("id", "host_id", "epoch", "open", "why", "outcome"),
    "fence_claim": ("id", "host_id", "epoch", "operation_id", "claimed_at"),
    "host": ("id", "name", "epoch"),
    "vm": ("id", "name"),
}
"""What is looked at of rows that are read again and again, and grow with history."""


class Proofs:
    """Remembers rows from look to look, so that each change is judged once."""

    def __init__(self, stage: Stage, boots: Boots, votes: Votes) -> None:
        self._stage = stage
        self._boots = boots
        self._votes = votes
        self._moves = Moves(stage.centre)
        self._runs: dict[UUID, str] = {r["id"]: r["state"] for r in self._table("vm_run")}
        self._certificates = {r["id"]: r["state"] for r in self._table("death_certificate")}
        self._incidents = {r["id"]: r["open"] for r in self._table("incident")}
        self._claims = {r["id"]: r["claimed_at"] for r in self._table("fence_claim")}
        self._hosts: dict[UUID, Row] = {}
        self._vms = {row["id"]: row["name"] for row in self._table("vm")}

    @property
    def certificates(self) -> int:
        """How many were issued."""
        return len(self._certificates)

    def look(self, tables: frozenset[str], power: Power) -> Iterator[Found]:
        """Judge what a transaction is about to change."""
        self._hosts = {row["id"]: row for row in self._table("host")}
        if "incident" in tables:
            yield from self._tell_incidents(power)
        if "fence_claim" in tables:
            yield from self._claimed(power)
        if "death_certificate" in tables:
            yield from self._certified()
        if "vm_run" in tables:
            yield from self._moved(power)

    def marked(self, host: str) -> Iterator[Found]:
        """Judge what a host still has of runs that were lost, once it is marked as reconciled."""
        hosts = {row["id"]: row["name"] for row in self._table("host")}
        left = self._stage.centre.hosts[host].domains
        for run in self._stage.rows.table("vm_run", "state = 'lost'"):
            found = left.get(run["vm_id"])
            if hosts[run["host_id"]] == host and found and found.generation == run["generation"]:
                yield "stale_copy", f"{found.name} is lost, and {host} was reconciled with it", None

    def _table(self, name: str) -> list[Row]:
        return self._stage.rows.table(name, columns=LOOKED_AT[name])

    def _tell(self, kind: str, subject: str, **facts: Any) -> None:
        self._stage.trace(kind, subject, **facts)

    def _tell_incidents(self, power: Power) -> Iterator[Found]:
        for row in self._table("incident"):
            name, was = self._hosts[row["host_id"]]["name"], self._incidents.get(row["id"], 0)
            if was == 0:
                self._tell("incident.opened", name, epoch=row["epoch"], why=row["why"])
                if power.mode is DisarmMode.IGNORE:
                    yield "disarmed", f"{name} failed while failures were ignored", None
            elif was == 1 and row["open"] is None:
                self._tell("incident.closed", name, outcome=row["outcome"])
            self._incidents[row["id"]] = row["open"]

    def _claimed(self, power: Power) -> Iterator[Found]:
        for row in self._table("fence_claim"):
            if self._claims.get(row["id"]) == row["claimed_at"]:
                continue
            self._claims[row["id"]] = row["claimed_at"]
            name = self._hosts[row["host_id"]]["name"]
            self._tell("fence.claimed", name, epoch=row["epoch"])
            if power.disarmed_s is not None:
                yield "disarmed", f"the fence of {name} was claimed in a disarmed cluster", None
            if not self._goes_on(row["operation_id"]):
                yield "cancelled", f"the fence of {name} was claimed though it was to end", None
            for check, sentence in self._votes.claimed(row):
                yield check, sentence, None

    def _goes_on(self, operation_id: UUID) -> bool:
        """Whether an operation and the one it is a part of are open, and not to be cancelled."""
        own = self._stage.rows.operation(operation_id)
        parent = own["parent_id"] and self._stage.rows.operation(own["parent_id"])
        states = {each["state"] for each in (own, parent) if each}
        return states <= set(OPEN) - {OperationState.CANCELLING}

    def _certified(self) -> Iterator[Found]:
        for row in self._table("death_certificate"):
            was, state = self._certificates.get(row["id"]), row["state"]
            if was == state:
                continue
            self._certificates[row["id"]] = state
            name = self._hosts[row["host_id"]]["name"]
            told = "certificate.issued" if state == "valid" else "certificate.voided"
            self._tell(told, name, epoch=row["epoch"])
            if was is None:
                if self._incidents.get(row["incident_id"]) != 1:
                    yield "cancelled", f"{name} was certified for an incident that is over", None
                yield from self._judge_certificate(row, name)

    def _judge_certificate(self, row: Row, name: str) -> Iterator[Found]:
        devices = self._stage.rows.table("fence_device")
        levels: dict[int, tuple[str, ...]] = {}
        for device in devices:
            if device["host_id"] == row["host_id"]:
                levels[device["level"]] = (*levels.get(device["level"], ()), device["name"])
        if self._boots.alive(name, row["epoch"]):
            why = f"{name} lives in epoch {row['epoch']}, and is certified to be dead"
            yield "certified_dead", why, self._boots.lied(name)
        unread = [self._boots.unread(name, levels[level]) for level in sorted(levels)]
        if all(unread):  # no level has read off as a whole
            silent = ", ".join(device for level in unread for device in level)
            yield "certified_dead", f"{name} is certified, {silent} never read off", None

    def _moved(self, power: Power) -> Iterator[Found]:
        rows = self._table("vm_run")
        for sentence in self._moves.look(rows, self._hosts):
            yield "moved", sentence, None
        for row in rows:
            was, state = self._runs.get(row["id"]), row["state"]
            if was == state:
                continue
            self._runs[row["id"]] = state
            self._tell_run(row)
            if state == RunState.STARTING:
                yield from self._judge_start(row, rows, power)
            if state in (RunState.ENDED, RunState.LOST):
                yield from self._judge_end(row)

    def _tell_run(self, row: Row) -> None:
        if row["vm_id"] not in self._vms:
            self._vms = {vm["id"]: vm["name"] for vm in self._table("vm")}
        host = self._hosts[row["host_id"]]["name"]
        name, generation = self._vms[row["vm_id"]], row["generation"]
        self._tell(f"run.{row['state']}", name, host=host, generation=generation)

    def _judge_start(self, run: Row, rows: list[Row], power: Power) -> Iterator[Found]:
        name = self._vms[run["vm_id"]]
        valid = {
            (row["host_id"], row["epoch"])
            for row in self._table("death_certificate")
            if row["state"] == "valid"
        }
        for other in rows:
            if other["vm_id"] != run["vm_id"] or other["id"] == run["id"]:
                continue
            host = self._hosts[other["host_id"]]
            if other["active"] == 1:
                yield "proof_of_start", f"{name} starts beside an active run", None
            if other["state"] != RunState.LOST or host["epoch"] != other["epoch"]:
                continue
            if (other["host_id"], other["epoch"]) not in valid:
                why = f"{name} starts, and nothing proves its copy on {host['name']} to be dead"
                yield "proof_of_start", why, None
        if run["incident_id"] is not None and power.mode is DisarmMode.FREEZE:
            yield "disarmed", f"{name} is started though recoveries are frozen", None
        if power.disarmed_s is not None and self._automatic(run):
            late = self._stage.loop.time() - power.disarmed_s > STARTED_BEFORE_S
            if late:
                yield "disarmed", f"{name} is started in a disarmed cluster", None

    def _automatic(self, run: Row) -> bool:
        if run["incident_id"] is not None:
            return True
        owner = self._stage.rows.operation(run["operation_id"])
        return owner["parent_id"] is not None

    def _judge_end(self, run: Row) -> Iterator[Found]:
        host = self._hosts[run["host_id"]]["name"]
        real = self._stage.centre.hosts[host]
        found = real.domains.get(run["vm_id"])
        if found is None or not found.alive or found.by_hand:
            return
        if found.running == run["generation"]:
            why = f"{found.name} is {run['state']} on {host}, where its process lives"
            yield "closed_alive", why, self._boots.lied(host)

"""The format `neutral-ha-scenario/1`, as a file says it.

Unknown fields are kept and named by `unknown_fields`: a newer file still runs, and says what of it
was not played. Times are virtual seconds since the scenario began.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domain.errors import Invalid, NotFound

FORMAT = "neutral-ha-scenario/1"


class Said(BaseModel):
    """A part of a file: frozen, and open to fields that this version does not know."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of fields that this version does not know."""
        return tuple(sorted(self.model_extra or {}))


class Size(Said):
    """What a VM was given."""

    maxcpu: float | None = None
    maxmem: float | None = None  # bytes


class HostSaid(Said):
    """A host when the scenario begins."""

    power: bool = False
    network: bool = False
    maxcpu: float | None = None
    maxmem: float | None = None  # bytes


class VmSaid(Said):
    """A VM when the scenario begins: `host` is where it lies, whether it runs or not.

    `fault_digits` say how often its start (second digit) and its migration (third) fail, and
    whether its stop does (fourth, unless 0).
    """

    host: str | None = None
    wanted: str = "started"
    kind: str = "vm"
    failback: bool = True
    max_restart: int = 1
    max_relocate: int = 1
    fault_digits: str = ""
    size: Size | None = None
    load: dict[str, Any] | None = None


class Rule(Said):
    """Where VMs may run: on which hosts (`nodes`, by priority), or together or apart."""

    kind: str
    id: str
    resources: tuple[str, ...] = ()
    nodes: dict[str, int] = Field(default_factory=dict)
    strict: bool = False
    affinity: str | None = None


class Op(Said):
    """One thing that happens; what it needs beside its name are its further fields."""

    t: float
    op: str

    @property
    def given(self) -> dict[str, Any]:
        """Its fields beside time and name."""
        return dict(self.model_extra or {})


class PriorService(Said):
    """What the peer's manager had noted of a VM."""

    node: str | None = None
    state: str = "started"
    target: str | None = None


class PriorState(Said):
    """What the peer's manager had noted when the scenario begins."""

    node_status: dict[str, str] = Field(default_factory=dict)
    service_status: dict[str, PriorService] = Field(default_factory=dict)


class Fenced(Said):
    """A host that the peer fenced."""

    host: str
    t: float = 0.0


class Moved(Said):
    """A move that the peer made; `peer_rto_s` for a recovery."""

    vm: str
    kind: str = ""
    t: float = 0.0
    peer_rto_s: float | None = None


class Oracle(Said):
    """What the peer did."""

    hosts_fenced: tuple[Fenced, ...] = ()
    moves: tuple[Moved, ...] = ()
    final_running: dict[str, str] = Field(default_factory=dict)


class Scenario(Said):
    """One scenario."""

    name: str
    what: str = ""
    category: str = ""
    hosts: dict[str, HostSaid]
    vms: dict[str, VmSaid] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    groups: tuple[Any, ...] = ()
    policy: dict[str, Any] = Field(default_factory=dict)
    prior_state: PriorState = PriorState()
    timeline: tuple[Op, ...] = ()
    end_s: float = 600.0
    oracle: Oracle = Oracle()


BALANCED = "auto-rebalance"
"""Scenarios that ask for a balancer, which there is none of; they are played and counted apart."""

HARMLESS = frozenset({"scenario.fit", "prior_state.master_node"}) | {
    f"prior_state.{name}" for name in ("timestamp", "relocate_tried_nodes")
}
"""Fields that say nothing about what is to happen: labels, and the peer's own book-keeping."""

PEERS_OWN = frozenset({"prior_state.service_status.uid", "prior_state.service_status.running"})


def unknown_fields(scenario: Scenario) -> tuple[str, ...]:
    """Fields that may matter and that nothing here reads, each once, as `part.field`."""
    found = dict.fromkeys(_unknown(scenario))
    return tuple(name for name in found if name not in HARMLESS | PEERS_OWN)


def _unknown(scenario: Scenario) -> Iterator[str]:
    prior = scenario.prior_state
    parts: tuple[tuple[str, tuple[Said, ...]], ...] = (
        ("scenario", (scenario,)),
        ("host", tuple(scenario.hosts.values())),
        ("vm", tuple(scenario.vms.values())),
        ("vm.size", tuple(vm.size for vm in scenario.vms.values() if vm.size is not None)),
        ("rule", scenario.rules),
        ("prior_state", (prior,)),
        ("prior_state.service_status", tuple(prior.service_status.values())),
    )
    for part, values in parts:
        for value in values:
            yield from (f"{part}.{name}" for name in value.unknown)


def read_file(path: Path) -> tuple[Scenario, ...]:
    """Every scenario of a file, or why it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound("SCENARIO_FILE_NOT_FOUND", f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise Invalid("SCENARIO_FILE_UNREADABLE", f"{path}: {error}") from None
    return scenarios_of(document)


def scenarios_of(document: Any) -> tuple[Scenario, ...]:
    """Every scenario of a document: a file's, a bare list, or one scenario alone."""
    if isinstance(document, Mapping) and document.get("format", FORMAT) != FORMAT:
        detail = f"the file's format is {document['format']}, not {FORMAT}"
        raise Invalid("SCENARIO_FORMAT_UNKNOWN", detail)
    listed = document.get("scenarios", [document]) if isinstance(document, Mapping) else document
    try:
        return tuple(Scenario.model_validate(one) for one in listed)
    except (ValidationError, TypeError) as error:
        raise Invalid("SCENARIO_FILE_UNREADABLE", f"not a scenario: {error}") from None

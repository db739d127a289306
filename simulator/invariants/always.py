"""What holds after every transaction. Rows alone decide, so it can be asked at each commit."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from domain.capacity import memory_allowed_mib, vcpus_allowed
from domain.inventory import RunState
from domain.profiles import START_DEADLINE_S
from domain.soft_step import TRIES_MAX
from simulator.invariants.facts import OPEN, Check, Facts, Part
from simulator.world.centre import DataCentre
from store.starts import BATCH


def one_active_run_at_most(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I1, as the engine counts it."""
    for vm_id, runs in Counter(run["vm_id"] for run in facts.active).items():
        if runs > 1:
            yield f"VM {vm_id} has {runs} active runs"


def what_is_lost_is_certified(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I2: a lost run names a certificate of its own host and epoch."""
    certificates = facts.by_id("death_certificate")
    for run in facts.rows["vm_run"]:
        if run["state"] != RunState.LOST:
            continue
        found = certificates.get(run["lost_certificate_id"])
        same = found and (found["host_id"], found["epoch"]) == (run["host_id"], run["epoch"])
        if not same:
            yield f"run {run['id']} is lost without a certificate of its host and epoch"


def locks_end_with_their_operations(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """An operation that has ended holds nothing."""
    operations = facts.by_id("operation")
    for lock in facts.rows["entity_lock"]:
        holder = operations[lock["operation_id"]]
        if holder["state"] not in OPEN:
            yield f"{holder['kind']} {holder['target_name']} has ended and holds a lock"


WORKS_UNDER_ITS_LOCK = (
    *("vm.start", "vm.stop", "host.activate", "host.maintain", "host.shutdown", "host.reboot"),
    "host.restart_libvirtd",
)
"""Kinds whose target is theirs from beginning to end. A recovery gives its host free earlier."""


def who_works_holds_its_lock(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """An operation that a workflow has claimed owns its target until it has ended."""
    held = {(lock["operation_id"], lock["entity_id"]) for lock in facts.rows["entity_lock"]}
    for op in facts.rows["operation"]:
        works = op["run_id"] is not None and op["state"] in OPEN
        if not works or op["kind"] not in WORKS_UNDER_ITS_LOCK:
            continue
        if (op["id"], op["target_id"]) not in held:
            yield f"{op['kind']} {op['target_name']} is {op['state']} and holds no lock"


def capacity_holds(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I6: what is promised equals what the runs take, and no host promises more than it may.

    That is what its cluster allows now: nobody lowers that while a simulation runs.
    """
    clusters = facts.by_id("cluster")
    mibs, counts = _taken(facts, "memory_mib"), _taken(facts, "vcpus")
    for host in facts.rows["host"]:
        mib, vcpus = mibs[host["id"]], counts[host["id"]]
        if host["memory_reserved_mib"] != mib:
            yield f"{host['name']} promises {host['memory_reserved_mib']} MiB, not {mib}"
        limits = clusters[host["cluster_id"]]
        if host["memory_reserved_mib"] > memory_allowed_mib(
            host["memory_mib"], limits["memory_overcommit"]
        ):
            yield f"{host['name']} promises more than it has"
        if host["vcpus_reserved"] != vcpus:
            yield f"{host['name']} promises {host['vcpus_reserved']} vCPUs, not {vcpus}"
        most = vcpus_allowed(host["cpus"], limits["vcpu_overcommit"])
        if most is not None and host["vcpus_reserved"] > most:
            yield f"{host['name']} promises {host['vcpus_reserved']} vCPUs of {most}"


def _taken(facts: Facts, what: str) -> Counter[UUID]:
    """What runs take of each host, also of the one that they are moved to."""
    taken: Counter[UUID] = Counter()
    for run in facts.active:
        taken[run["host_id"]] += run[what]
        if run["state"] == RunState.MIGRATING:
            taken[run["target_host_id"]] += run[what]
    return taken


def starts_take_turns(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """No host starts more VMs at once by itself than its cluster allows, whatever for.

    As at the newest claim: those of within the time that a start may take, whichever clock they
    have. Nobody lowers the limit while a simulation runs.
    """
    operations, clusters = facts.by_id("operation"), facts.by_id("cluster")
    begun: dict[UUID, list[datetime]] = {}
    for run in facts.active:
        start = operations.get(run["operation_id"])
        if run["state"] != RunState.STARTING or run["turn_at"] is None or start is None:
            continue
        parent = operations.get(start["parent_id"])
        if start["parent_id"] is not None and (parent is None or parent["kind"] != BATCH):
            begun.setdefault(run["host_id"], []).append(run["turn_at"])
    for host in facts.rows["host"]:
        times, most = begun.get(host["id"], []), clusters[host["cluster_id"]]["starts_per_host"]
        recent = [at for at in times if (max(times) - at).total_seconds() < START_DEADLINE_S]
        if len(recent) > most:
            yield f"{host['name']} starts {len(recent)} VMs at once, and {most} at the most may"


def nothing_runs_in_maintenance(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A host is in maintenance only while no run names it, also as the target of a migration."""
    named = {run[side] for run in facts.active for side in ("host_id", "target_host_id")}
    for host in facts.rows["host"]:
        if host["state"] == "maintenance" and host["id"] in named:
            yield f"{host['name']} is in maintenance, and a VM may run there"


def one_incident_at_most(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A host and epoch has one open incident; an incident's operation that ended has closed it."""
    operations = facts.by_id("operation")
    seen: Counter[tuple[UUID, int]] = Counter()
    for incident in facts.rows["incident"]:
        if incident["open"] == 1:
            seen[incident["host_id"], incident["epoch"]] += 1
            owner = operations[incident["operation_id"]]
            if owner["state"] == "succeeded":
                yield f"{owner['kind']} {owner['target_name']} left its incident open"
    for (host_id, epoch), number in seen.items():
        if number > 1:
            yield f"host {host_id} has {number} open incidents in epoch {epoch}"


def libvirtd_is_not_restarted_for_ever(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A run is shorter than the window of the engine's own soft steps, clocks that jump and all."""
    for host_id, number in Counter(s["host_id"] for s in facts.rows["soft_step"]).items():
        if number > TRIES_MAX:
            yield f"the engine has restarted libvirtd on host {host_id} {number} times"


LOOKS_AT: dict[Check, tuple[str, ...]] = {
    one_active_run_at_most: ("vm_run",),
    what_is_lost_is_certified: ("vm_run", "death_certificate"),
    locks_end_with_their_operations: ("entity_lock", "operation"),
    who_works_holds_its_lock: ("entity_lock", "operation"),
    capacity_holds: ("vm_run", "host", "cluster"),
    starts_take_turns: ("vm_run", "operation", "host", "cluster"),
    nothing_runs_in_maintenance: ("vm_run", "host"),
    one_incident_at_most: ("incident", "operation"),
    libvirtd_is_not_restarted_for_ever: ("soft_step",),
}
"""Which tables each check reads: one that no transaction has changed since needs no second look."""

JUDGED: dict[str, Part] = {
    "vm_run": Part(
        (
            *("id", "vm_id", "host_id", "epoch", "memory_mib", "vcpus", "state", "active"),
            *("lost_certificate_id", "target_host_id", "operation_id", "turn_at"),
        ),
        f"active = 1 OR state = '{RunState.LOST}'",
    ),
    "host": Part(
        (
            *("id", "name", "state", "memory_mib", "memory_reserved_mib"),
            *("cluster_id", "cpus", "vcpus_reserved"),
        )
    ),
    "cluster": Part(("id", "vcpu_overcommit", "memory_overcommit", "starts_per_host")),
    "death_certificate": Part(("id", "host_id", "epoch")),
    "soft_step": Part(("id", "host_id"), "automatic"),
    "incident": Part(("id", "host_id", "epoch", "open", "operation_id"), "open = 1"),
    "operation": Part(
        ("id", "kind", "state", "target_id", "target_name", "run_id", "parent_id"),
        f"state IN ({', '.join(repr(state) for state in OPEN)})"
        " OR id IN (SELECT operation_id FROM entity_lock)"
        " OR id IN (SELECT operation_id FROM incident WHERE open = 1)",
    ),
}
"""The part of a table that the checks judge: history grows, and would be read at each commit."""

ALWAYS: tuple[Check, ...] = tuple(LOOKS_AT)

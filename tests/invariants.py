"""What must hold whenever nothing is under way: one list, asked after every scenario and fault.

The data centre says what is, the database says what the engine believes; each check compares the
two or judges one of them, and gives one sentence for each way in which it is broken.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import RunState
from domain.operations import OPEN_STATES, StepState
from domain.readings import DomainState
from store.columns import metadata
from store.database import Database
from store.rows import Row, many
from tests.fakes import DataCentre

OPEN = [state.value for state in OPEN_STATES]
TABLES = (
    *("cluster", "host", "vm", "vm_run", "operation", "step", "entity_lock", "event"),
    *("incident", "death_certificate", "outbox"),
)


@dataclass(frozen=True)
class Facts:
    """Every row that a check looks at, read in one transaction."""

    rows: dict[str, list[Row]]

    def by_id(self, table: str) -> dict[UUID, Row]:
        """The rows of a table by id."""
        return {row["id"]: row for row in self.rows[table]}

    @property
    def active(self) -> list[Row]:
        """Runs that may have a process."""
        return [run for run in self.rows["vm_run"] if run["active"] == 1]


def one_copy_at_most(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I1, as the world itself counted it."""
    names = facts.by_id("vm")
    for vm_id, copies in centre.copies_max.items():
        if copies > 1:
            yield f"{names[vm_id]['name']} had {copies} copies at once"


def one_active_run_at_most(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I1, as the engine counts it."""
    for vm_id, runs in Counter(run["vm_id"] for run in facts.active).items():
        if runs > 1:
            yield f"VM {vm_id} has {runs} active runs"


def every_copy_has_its_run(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """No process that the engine does not know, except on hosts that are out of service."""
    hosts = {row["name"]: row for row in facts.rows["host"]}
    known = {(run["vm_id"], run["host_id"], run["generation"]) for run in facts.active}
    for host in centre.hosts.values():
        row = hosts.get(host.name)
        if row is None or row["state"] not in ("up", "connecting"):
            continue
        for vm_id, domain in host.domains.items():
            ours = domain.generation is not None and domain.state is DomainState.RUNNING
            if ours and (vm_id, row["id"], domain.running) not in known:
                yield f"{domain.name} runs on {host.name} without a run"


def every_running_run_has_its_copy(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """What the engine calls running runs, on a host that is in service and answers."""
    hosts, names = facts.by_id("host"), facts.by_id("vm")
    for run in facts.active:
        host = hosts[run["host_id"]]
        real = centre.hosts[host["name"]]
        if run["state"] != RunState.RUNNING or host["state"] != "up" or not real.answers:
            continue
        domain = real.domains.get(run["vm_id"])
        if domain is None or domain.running != run["generation"]:
            yield f"{names[run['vm_id']]['name']} does not run on {host['name']}"


def every_wanted_vm_is_accounted_for(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A VM that someone wants runs, is being started, was left down, or says why it is not up."""
    runs = {run["vm_id"] for run in facts.active}
    kinds = ("vm.start", "vm.stop")
    told = {op["target_id"] for op in facts.rows["operation"] if op["kind"] in kinds}
    lost = {run["vm_id"] for run in facts.rows["vm_run"] if run["state"] == RunState.LOST}
    for vm in facts.rows["vm"]:
        accounted = vm["id"] in runs | told or (vm["id"] in lost and not vm["protected"])
        if vm["wanted"] and not accounted:
            yield f"{vm['name']} is wanted, down, and nothing says why"


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


def operations_end_or_say_why_they_wait(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I4: nothing is lost on the way."""
    for op in facts.rows["operation"]:
        what = f"{op['kind']} {op['target_name']}"
        if op["state"] == "waiting" and not (op["reason_code"] and op["waiting_for"]):
            yield f"{what} waits without a reason"
        if op["state"] in OPEN and op["state"] != "waiting":
            yield f"{what} is still {op['state']}"
        if op["state"] == "failed" and not (op["problem"] or {}).get("code"):
            yield f"{what} failed without a problem"


CLOSING = ("succeeded", "failed", "cancelled", "needs_attention", "refused")
"""How the type of an event ends that closes an operation; an item of a batch may be refused."""


def operations_end_once(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I4: nothing is doubled; each end has one event, and a try has one end at most."""
    ends = Counter(
        event["operation_id"]
        for event in facts.rows["event"]
        if event["type"].rpartition(".")[2] in CLOSING
    )
    for op in facts.rows["operation"]:
        ended = bool(op["workflow"]) and op["state"] not in OPEN
        least, most = int(ended), op["attempt"] - int(not ended)
        if not least <= ends[op["id"]] <= most:
            yield f"{op['kind']} {op['target_name']} has {ends[op['id']]} closing events"


def steps_end_with_their_operations(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """The tree of an operation that ended by itself shows no step as running."""
    operations = facts.by_id("operation")
    for step in facts.rows["step"]:
        owner = operations[step["operation_id"]]
        if step["state"] == StepState.RUNNING and owner["state"] not in OPEN:
            yield f"{step['name']} of {owner['kind']} {owner['target_name']} still runs"


def capacity_holds(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I6: what is promised equals what the runs take, and no host promises more than it has."""
    taken: Counter[UUID] = Counter()
    for run in facts.active:
        taken[run["host_id"]] += run["memory_mib"]
    for host in facts.rows["host"]:
        if host["memory_reserved_mib"] != taken[host["id"]]:
            yield f"{host['name']} promises {host['memory_reserved_mib']}, not {taken[host['id']]}"
        if host["memory_reserved_mib"] > host["memory_mib"]:
            yield f"{host['name']} promises more than it has"


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


Check = Callable[[DataCentre, Facts], Iterator[str]]

CHECKS: tuple[Check, ...] = (
    one_copy_at_most,
    one_active_run_at_most,
    every_copy_has_its_run,
    every_running_run_has_its_copy,
    every_wanted_vm_is_accounted_for,
    what_is_lost_is_certified,
    locks_end_with_their_operations,
    operations_end_or_say_why_they_wait,
    operations_end_once,
    steps_end_with_their_operations,
    capacity_holds,
    one_incident_at_most,
)


async def read_facts(database: Database) -> Facts:
    """Read every row that the checks look at."""

    async def work(connection: AsyncConnection) -> Facts:
        rows = {}
        for name in TABLES:
            rows[name] = await many(connection, sa.select(metadata.tables[name]))
        return Facts(rows)

    return await database.read(work)


def broken(centre: DataCentre, facts: Facts) -> list[str]:
    """Each broken invariant as `check: sentence`."""
    return [f"{check.__name__}: {why}" for check in CHECKS for why in check(centre, facts)]


async def broken_invariants(centre: DataCentre, database: Database) -> list[str]:
    """Read the database and check it against the world; empty means all is well."""
    return broken(centre, await read_facts(database))

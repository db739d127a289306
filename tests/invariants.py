"""The invariants under the names that tests use, asked of a database through the store."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from simulator.invariants import CHECKS, TABLES, Facts, broken
from simulator.invariants.always import (
    capacity_holds,
    libvirtd_is_not_restarted_for_ever,
    locks_end_with_their_operations,
    nothing_runs_in_maintenance,
    one_active_run_at_most,
    one_incident_at_most,
    starts_take_turns,
    what_is_lost_is_certified,
    who_works_holds_its_lock,
)
from simulator.invariants.quiet import (
    every_copy_has_its_run,
    every_running_run_has_its_copy,
    every_wanted_vm_is_accounted_for,
    no_protected_vm_is_forgotten,
    nothing_stays_hung,
    nothing_stays_paused,
    one_copy_at_most,
    operations_end_once,
    operations_end_or_say_why_they_wait,
    steps_end_with_their_operations,
    vms_come_back_from_a_planned_stop,
)
from store.columns import metadata
from store.database import Database
from store.rows import many
from tests.fakes import DataCentre

__all__ = [
    "CHECKS",
    "TABLES",
    "Facts",
    "broken",
    "broken_invariants",
    "capacity_holds",
    "every_copy_has_its_run",
    "every_running_run_has_its_copy",
    "every_wanted_vm_is_accounted_for",
    "libvirtd_is_not_restarted_for_ever",
    "locks_end_with_their_operations",
    "no_protected_vm_is_forgotten",
    "nothing_runs_in_maintenance",
    "nothing_stays_hung",
    "nothing_stays_paused",
    "one_active_run_at_most",
    "one_copy_at_most",
    "one_incident_at_most",
    "operations_end_once",
    "operations_end_or_say_why_they_wait",
    "read_facts",
    "starts_take_turns",
    "steps_end_with_their_operations",
    "vms_come_back_from_a_planned_stop",
    "what_is_lost_is_certified",
    "who_works_holds_its_lock",
]


async def read_facts(database: Database) -> Facts:
    """Read every row that the checks look at."""

    async def work(connection: AsyncConnection) -> Facts:
        rows = {}
        for name in TABLES:
            rows[name] = await many(connection, sa.select(metadata.tables[name]))
        return Facts(rows)

    return await database.read(work)


async def broken_invariants(centre: DataCentre, database: Database) -> list[str]:
    """Read the database and check it against the world; empty means all is well."""
    return broken(centre, await read_facts(database))

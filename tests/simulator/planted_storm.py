"""Planted bugs of the storm guard and of disarming: patches that each break one of their rules."""

from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from activities import recovery as activity_recovery
from domain import storm
from domain.fence_budgets import Scope
from domain.storm import Approval, FenceFacts, Held
from engine.records import runs as run_records
from engine.records import storm as storm_records
from simulator.faults.plan import Plan
from simulator.setup import FenceLimits, Setup
from store import control, fence_budgets, fence_claims, runs
from store.schema_ha import approval
from tests.simulator.families import FAST, WIDE, cut_off, fault, plan
from tests.simulator.planted import Bug

RACKED = WIDE.model_copy(update={"limits": FenceLimits(fences_max=3, rack_fences_max=1)})
"""h1, h3 and h5 stand in one rack, h2 and h4 in the other."""

MANY = Setup.small(hosts=5, vms=2)


def two_of_a_rack(seed: int) -> tuple[Setup, Plan]:
    """One host is cut off, and another one of its rack a while later."""
    rng = Random(seed)
    faults = (cut_off("h1", 1), cut_off("h3", rng.uniform(11, 14)))
    return RACKED, plan("two of a rack", *faults, lasts_s=28)


def one_of_three_approved(seed: int) -> tuple[Setup, Plan]:
    """Three hosts are cut off one after the other; a person approves of fencing the second."""
    rng = Random(seed)
    leave = fault("person.approve", rng.uniform(0.5, 3), "h2", after_event="incident.opened:h2")
    faults = (cut_off("h1", 1), cut_off("h2", 12), leave, cut_off("h3", rng.uniform(26, 30)))
    return WIDE, plan("one of three approved", *faults, lasts_s=45)


def frozen(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power, and recoveries are frozen once its VMs have a place elsewhere."""
    rng = Random(seed)
    args: dict[str, Any] = {"mode": "freeze"}
    freeze = fault("person.disarm", rng.uniform(0, 0.02), "", after_event="run.placed", args=args)
    return FAST, plan("frozen", fault("host.power_cut", 1), freeze)


def failed_while_ignored(seed: int) -> tuple[Setup, Plan]:
    """Failures are ignored, and a host is cut off."""
    rng = Random(seed)
    ignore = fault("person.disarm", 0.5, "", args={"mode": "ignore"})
    return FAST, plan("failed while ignored", ignore, cut_off("h1", rng.uniform(2, 4)))


def rack_budget_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Neither the decision nor the claim of a fence counts those of the same rack."""
    budget = storm._budget

    def of_the_cluster(facts: FenceFacts) -> tuple[Held, ...]:
        kept = tuple(one for one in facts.budgets if one.scope is Scope.CLUSTER)
        return budget(facts.model_copy(update={"budgets": kept}))

    patch.setattr(storm, "_budget", of_the_cluster)
    patch.setattr(fence_claims, "has_room", lambda: fence_budgets._room_of("cluster"))


def one_approval_counts_for_all(patch: pytest.MonkeyPatch) -> None:
    """What was approved for one host's incident lets any host be fenced."""

    async def anybody(connection: AsyncConnection, _incident_id: object) -> Approval | None:
        row = (await connection.execute(sa.select(approval.c.principal))).first()
        return None if row is None else Approval(by=row.principal, reason="for another host")

    patch.setattr(storm_records, "approval_of", anybody)
    patch.setattr(fence_claims, "approved", lambda _id: sa.exists().select_from(approval))


def freeze_stops_no_start(patch: pytest.MonkeyPatch) -> None:
    """The claim of a run for `create()` takes every cluster for armed."""
    begin = runs.begin_start

    async def always(connection: AsyncConnection, *given: Any) -> bool:
        was = (await connection.exec_driver_sql("SELECT id, disarm_mode FROM cluster")).all()
        await connection.exec_driver_sql("UPDATE cluster SET disarm_mode = NULL")
        begun = await begin(connection, *given)
        again = "UPDATE cluster SET disarm_mode = ? WHERE id = ?"
        for row in was:
            await connection.exec_driver_sql(again, (row.disarm_mode, row.id))
        return begun

    async def anywhere(*_given: object) -> None:
        return None

    patch.setattr(runs, "begin_start", always)
    patch.setattr(run_records, "_refuse_frozen", anywhere)


def ignored_failures_are_taken(patch: pytest.MonkeyPatch) -> None:
    """The report of a failure is accepted though its cluster ignores failures."""
    from engine.actions import hosts

    patch.setattr(hosts, "DisarmMode", type("Unknown", (), {"IGNORE": "nothing"}))


def cancelled_as_it_cuts(seed: int) -> tuple[Setup, Plan]:
    """A host is cut off, and a person cancels its recovery as the fence is about to claim."""
    rng = Random(seed)
    cancel = fault("person.cancel", 0, "host.recover", after_event="step.started:fencing.power_off")
    return FAST, plan("cancelled as it cuts", cut_off("h1", rng.uniform(0.5, 3)), cancel)


def cancelled_fence_cuts(patch: pytest.MonkeyPatch) -> None:
    """A fence is claimed whatever has become of its recovery."""
    patch.setattr(control, "goes_on", lambda _operation_id: sa.true())


def missed_for_a_moment(seed: int) -> tuple[Setup, Plan]:
    """One machine loses its link to a host for good, and its libvirtd hangs for moments."""
    rng = Random(seed)
    link = fault(
        "link.cut", 1, "h1", args={"net": "management", "way": "both", "other": "engine-2"}
    )
    hangs = (
        fault("host.libvirtd_hung", at_s, "h1", lasts_s=rng.uniform(3, 6))
        for at_s in range(25, 145, 12)
    )
    return MANY, plan("missed for a moment", link, *hangs, lasts_s=150, machines=2)


def a_moment_counts_as_silence(patch: pytest.MonkeyPatch) -> None:
    """One poll that a monitor misses is enough for a second witness."""
    patch.setattr(storm, "_short", lambda *_given: ())
    patch.setattr(activity_recovery, "silent_for", lambda *_given: True)


BUGS = (
    Bug(a_moment_counts_as_silence, missed_for_a_moment, 20, 1, ("votes",)),
    Bug(cancelled_fence_cuts, cancelled_as_it_cuts, 20, 1, ("cancelled",)),
    Bug(rack_budget_forgotten, two_of_a_rack, 10, 1, ("fence_budget",)),
    Bug(one_approval_counts_for_all, one_of_three_approved, 10, 1, ("fence_budget",)),
    Bug(freeze_stops_no_start, frozen, 20, 1, ("disarmed",)),
    Bug(ignored_failures_are_taken, failed_while_ignored, 10, 1, ("disarmed",)),
)

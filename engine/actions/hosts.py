"""Recovering, fencing and activating hosts."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.disarming import FAILURE_IGNORED, DisarmMode
from domain.errors import Conflict, Refused, Superseded
from domain.hosts import PUT_BACK, HostEvent, advance
from domain.inventory import HostState, RunState
from domain.locks import exclusive
from domain.matrix import REBOOTED, is_allowed
from domain.operations import Order
from domain.orders import ActivateHostOrder, FenceHostOrder, RecoverHostOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.closing import EMPTYING
from engine.refs import host_ref, policy_of
from store import hosts, incidents, runs
from store.ids import new_id
from store.rows import Row

RESTART = "host.restart_libvirtd"
"""What a host's failure, or its reboot, leaves without an object."""


@dataclass(frozen=True)
class HostFacts:
    """What acting on a host looks at."""

    host: Row
    cluster: Row


class RecoverHost(Params):
    """A host failed: judge it, prove it, start its VMs elsewhere."""

    host_id: UUID
    epoch: int = Field(ge=0)
    why: str = Field(max_length=1000)
    reported_by: str = Field(max_length=64)
    last_answer_at: datetime | None = None
    readings: tuple[dict[str, Any], ...] = ()


class RecoverHostAction(Action[RecoverHost, HostFacts]):
    """`host.recover`: one open incident a host and epoch, however often it is reported."""

    params = RecoverHost
    kind = "host.recover"
    permission = Permission.HOST_RECOVER
    priority = PriorityClass.RECOVERY
    workflow = "RecoverHost"
    idempotent = True
    reopens = True
    audited = False
    external = False
    # An import waits for the host that is dead, and would for minutes. An activation has ended but
    # for its last note: while it has work to do its host is `reconciling`, which forbids this.
    preempts = frozenset({"vm.import", "host.activate", "host.add", RESTART}) | EMPTYING

    async def plan(self, tx: Tx, params: RecoverHost, problems: Problems) -> Plan[HostFacts]:
        """Check that the report is about this epoch and the first one; else there is no more."""
        facts = await host_facts(tx, params.host_id)
        host = facts.host
        if host["epoch"] != params.epoch:
            raise Superseded(
                "EPOCH_STALE",
                f"{host['name']} is at epoch {host['epoch']}, the report names {params.epoch}",
            )
        known = await incidents.find_open(tx.connection, host["id"], host["epoch"])
        if known is not None:
            raise Conflict(
                "INCIDENT_OPEN",
                f"{host['name']} has an open incident already",
                next_step="follow it with `holdfast incident show`",
                incident_id=str(known["id"]),
            )
        if facts.cluster["disarm_mode"] == DisarmMode.IGNORE:
            problems.append(_ignored(facts))
        steps = ("judge the failure", "prove the host off", "claim its VMs", "start them elsewhere")
        plan = _plan(facts, *steps)
        if host["state"] == HostState.DOWN and not await _unclaimed(tx, host):
            problems.append(_nothing_left(host))
        if tx.attempt == 1 and await incidents.was_cancelled(
            tx.connection, host["id"], host["epoch"]
        ):
            problems.append(_cancelled(host))
        return plan

    async def execute(self, tx: Tx, params: RecoverHost, plan: Plan[HostFacts]) -> Done:
        """Open the incident and order the recovery."""
        host = plan.facts.host
        if not await hosts.move(tx.connection, host["id"], HostEvent.SILENT, params.why, tx.now):
            raise self.forbidden(params, plan, ())
        incident_id = await _open(tx, params)
        order = RecoverHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context.model_copy(update={"incident_id": incident_id}),
            policy=policy_of(plan.facts.cluster),
            host=host_ref(host),
            incident_id=incident_id,
        )
        data = {"why": params.why, "incident_id": str(incident_id)}
        before, after = _moved(host, HostEvent.SILENT)
        return Done(order, incident_id=incident_id, before=before, after=after, data=data)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Close the incident; the host keeps its state until the recovery is tried again."""
        await incidents.close(tx.connection, operation["incident_id"], "cancelled", tx.now)
        return "the incident was closed; nothing was moved"

    def forbidden(
        self, params: RecoverHost, plan: Plan[HostFacts], allowed: tuple[str, ...]
    ) -> Refused:
        """A host that answers, or that is out of service, does not fail."""
        host = plan.facts.host
        return Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}; only a host that misses polls can fail",
            state=host["state"],
        )


async def _unclaimed(tx: Tx, host: Row) -> bool:
    """Whether a host is proven dead and its VMs were never taken: that recovery was cut short."""
    proof = await incidents.valid_certificate(tx.connection, host["id"], host["epoch"])
    active = await runs.active_runs(tx.connection, host["id"])
    # One that moves is settled by its migration, whatever becomes of this recovery.
    return proof is not None and any(run["state"] != RunState.MIGRATING for run in active)


def _nothing_left(host: Row) -> Conflict:
    return Conflict(
        "NOTHING_TO_RECOVER",
        f"{host['name']} is down, and no VM is left to be taken from it",
        next_step="bring it back with `holdfast host activate`",
        host=host["name"],
    )


def _ignored(facts: HostFacts) -> Conflict:
    return Conflict(
        FAILURE_IGNORED,
        f"{facts.cluster['name']} is disarmed and ignores failures, so that of "
        f"{facts.host['name']} is noted only",
        next_step="`holdfast cluster arm NAME`: a host that is silent then is reported anew",
        host=facts.host["name"],
    )


def _cancelled(host: Row) -> Conflict:
    return Conflict(
        "RECOVERY_CANCELLED",
        f"the recovery of {host['name']} was cancelled by a person",
        next_step="retry that operation (`holdfast op list --kind host.recover`), or activate the "
        "host",
        host=host["name"],
    )


async def _open(tx: Tx, params: RecoverHost) -> UUID:
    incident_id = new_id()
    detected = params.last_answer_at or tx.now
    values = {
        "id": incident_id,
        "host_id": params.host_id,
        "epoch": params.epoch,
        "phase": "decide",
        "reported_by": params.reported_by,
        "why": params.why,
        "phases": {"detect": detected.isoformat(), "decide": tx.now.isoformat()},
        "last_answer_at": params.last_answer_at,
        "opened_at": tx.now,
    }
    await incidents.open_incident(tx.connection, values)
    for reading in params.readings:
        fact = {"id": new_id(), "incident_id": incident_id, "host_id": params.host_id}
        await incidents.add_evidence(
            tx.connection, fact | {"epoch": params.epoch, "detail": "", "at": tx.now} | reading
        )
    return incident_id


class FenceHost(Params):
    """Prove a host off, as a part of its recovery; the recovery's workflow starts it.

    `heard` are the rounds in which it had last answered each monitor when that was decided on,
    `eyes` the monitors whose silence that rests on, `words` how often a person had said that it is
    dead.
    """

    host_id: UUID
    incident_id: UUID
    cut: bool = True
    heard: dict[str, int] | None = None
    eyes: tuple[str, ...] = ()
    words: int = Field(default=0, ge=0)


class FenceHostAction(Action[FenceHost, HostFacts]):
    """`host.fence`: the recovery that it belongs to holds the host's lock."""

    params = FenceHost
    kind = "host.fence"
    permission = Permission.HOST_RECOVER
    priority = PriorityClass.RECOVERY
    workflow = "FenceHost"
    external = False
    retryable = False

    async def plan(self, tx: Tx, params: FenceHost, problems: Problems) -> Plan[HostFacts]:
        """Check that the incident is open."""
        facts = await host_facts(tx, params.host_id)
        host = facts.host
        known = await incidents.find_open(tx.connection, host["id"], host["epoch"])
        if known is None or known["id"] != params.incident_id:
            raise Superseded("INCIDENT_CLOSED", f"{host['name']}'s incident is not open any more")
        return Plan(target=host_target(host), facts=facts, steps=("cut its power", "read it back"))

    async def execute(self, tx: Tx, params: FenceHost, plan: Plan[HostFacts]) -> Done:
        """Order the fence."""
        order = FenceHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(plan.facts.host),
            incident_id=params.incident_id,
            cut=params.cut,
        )
        return Done(order=order)


class ActivateHost(Params):
    """Bring a host into service: power on, reconcile, up.

    `rebooted_epoch` is the monitor's word that a host in service, at that epoch, lost the mark of
    its boot.
    """

    host_id: UUID
    rebooted_epoch: int | None = None


class ActivateHostAction(Action[ActivateHost, HostFacts]):
    """`host.activate`: refused for a host that is in service or being recovered."""

    params = ActivateHost
    kind = "host.activate"
    own_fields = frozenset({"rebooted_epoch"})
    permission = Permission.HOST_OPERATE
    workflow = "ActivateHost"
    idempotent = True

    async def plan(self, tx: Tx, params: ActivateHost, problems: Problems) -> Plan[HostFacts]:
        """Check that nothing is being proven about the host."""
        facts = await host_facts(tx, params.host_id)
        host = facts.host
        known = await incidents.find_open(tx.connection, host["id"], host["epoch"])
        busy = known is not None and known["phase"] in ("decide", "prove")
        stale = params.rebooted_epoch not in (None, host["epoch"])
        plan = _plan(facts, "power it on", "wait for its answer", "settle its copies", "admit it")
        again = tx.attempt > 1 and params.rebooted_epoch is not None
        if again and is_allowed("host", self.kind, host["state"]):
            # A person has it tried again, and an earlier try took the host out of service.
            plan = replace(plan, state=HostState.UP)
        if busy or stale:
            problems.append(self.forbidden(params, plan, ()))
        return plan

    async def execute(self, tx: Tx, params: ActivateHost, plan: Plan[HostFacts]) -> Done:
        """Move the host to `reconciling` and order the rest."""
        host = plan.facts.host
        if not await hosts.move(
            tx.connection, host["id"], HostEvent.ACTIVATE, "being activated", tx.now
        ):
            raise self.forbidden(params, plan, ())
        tx.facts.forget("host", host["id"])
        before, after = _moved(host, HostEvent.ACTIVATE)
        return Done(activate_order(tx, plan.facts), before=before, after=after)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Give the host its state back; out of service where steps have begun."""
        host_id, why = operation["target_id"], "its activation was cancelled before it began"
        was = operation["order"].get("was")
        if was is not None and operation["run_id"] is None:
            await hosts.put_back(tx.connection, host_id, HostState(was), why, tx.now)
            return f"the host is {was} as before"
        await hosts.move(tx.connection, host_id, HostEvent.FAILED, why, tx.now)
        return "the host is left out of service"

    def outranks(self, params: ActivateHost) -> frozenset[str]:
        """An import, or a drain, waits for what was on the host before it rebooted."""
        return frozenset() if params.rebooted_epoch is None else EMPTYING | {"vm.import", RESTART}

    def rule(self, params: ActivateHost) -> str:
        """A host in service is activated anew only because it has rebooted."""
        return self.kind if params.rebooted_epoch is None else REBOOTED

    def forbidden(
        self, params: ActivateHost, plan: Plan[HostFacts], allowed: tuple[str, ...]
    ) -> Refused:
        """It is in service, or its failure is being judged."""
        host = plan.facts.host
        return Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}",
            next_step="only a host that is out of service can be activated",
            host=host["name"],
            state=host["state"],
        )


def activate_order(tx: Tx, facts: HostFacts) -> Order:
    """The order to bring a host into service, its power being switched on first."""
    was = HostState(facts.host["state"])
    return ActivateHostOrder(
        operation_id=tx.operation_id,
        attempt=tx.attempt,
        context=tx.context,
        policy=policy_of(facts.cluster),
        host=host_ref(facts.host),
        was=was if was in PUT_BACK else None,
    )


def _moved(host: Row, event: HostEvent) -> tuple[dict[str, str], dict[str, str]]:
    """The state of a host before and after an event, for the audit trail."""
    was = HostState(host["state"])
    return {"state": was.value}, {"state": advance(was, event).value}


async def host_facts(tx: Tx, host_id: UUID) -> HostFacts:
    """A host with its cluster; NotFound."""
    host = await existing(tx, "host", host_id)
    return HostFacts(host=host, cluster=await existing(tx, "cluster", host["cluster_id"]))


def host_target(host: Row) -> Target:
    """A host as an operation names it."""
    return Target("host", host["id"], host["name"], host["cluster_id"])


def _plan(facts: HostFacts, *steps: str) -> Plan[HostFacts]:
    host = facts.host
    return Plan(
        target=host_target(host),
        facts=facts,
        state=HostState(host["state"]),
        locks=(exclusive("host", host["id"]),),
        steps=steps,
    )

"""Recovering and activating hosts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from domain.errors import Conflict, Superseded
from domain.hosts import HostEvent, sources
from domain.inventory import HostState
from domain.orders import ActivateHostOrder, RecoverHostOrder
from engine.actions.base import Accepted, Action, Params, Tx, existing
from engine.refs import host_ref, policy_of
from store import hosts, incidents
from store.ids import new_id


class RecoverHost(Params):
    """A host failed: judge it, prove it, start its VMs elsewhere."""

    host_id: UUID
    epoch: int = Field(ge=0)
    why: str = Field(max_length=1000)
    reported_by: str = Field(max_length=64)
    last_answer_at: datetime | None = None
    readings: tuple[dict[str, Any], ...] = ()


class RecoverHostAction(Action[RecoverHost]):
    """`host.recover`: one open incident a host and epoch, however often it is reported."""

    params = RecoverHost
    kind = "host.recover"
    workflow = "RecoverHost"

    async def accept(self, tx: Tx, params: RecoverHost) -> Accepted:
        """Open the incident and order the recovery; Conflict (`INCIDENT_OPEN`) when it is open."""
        host = await existing(tx, "host", params.host_id)
        cluster = await existing(tx, "cluster", host["cluster_id"])
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
        if not await hosts.move(tx.connection, host["id"], HostEvent.SILENT, params.why, tx.now):
            raise Conflict(
                "HOST_STATE_FORBIDS",
                f"{host['name']} is {host['state']}; only a host that misses polls can fail",
                state=host["state"],
            )
        incident_id = await _open(tx, params)
        order = RecoverHostOrder(
            operation_id=tx.operation_id,
            context=tx.context.model_copy(update={"incident_id": incident_id}),
            policy=policy_of(cluster),
            host=host_ref(host),
            incident_id=incident_id,
        )
        return Accepted(
            "host",
            host["id"],
            host["name"],
            host["cluster_id"],
            (("host", host["id"]),),
            order,
            incident_id=incident_id,
            data={"why": params.why, "incident_id": str(incident_id)},
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


class ActivateHost(Params):
    """Bring a host into service: power on, reconcile, up.

    `rebooted_epoch` is the monitor's word that a host in service, at that epoch, lost the mark of
    its boot.
    """

    host_id: UUID
    rebooted_epoch: int | None = None


class ActivateHostAction(Action[ActivateHost]):
    """`host.activate`: refused for a host that is in service or being recovered."""

    params = ActivateHost
    kind = "host.activate"
    workflow = "ActivateHost"

    async def accept(self, tx: Tx, params: ActivateHost) -> Accepted:
        """Move the host to `reconciling` and order the rest."""
        host = await existing(tx, "host", params.host_id)
        cluster = await existing(tx, "cluster", host["cluster_id"])
        known = await incidents.find_open(tx.connection, host["id"], host["epoch"])
        busy = known is not None and known["phase"] in ("decide", "prove")
        in_service = {HostState.UP, HostState.CONNECTING}
        rebooted = params.rebooted_epoch == host["epoch"]
        idle = set(sources(HostEvent.ACTIVATE)) - (set() if rebooted else in_service)
        if busy or host["state"] not in idle:
            raise Conflict(
                "HOST_STATE_FORBIDS",
                f"{host['name']} is {host['state']}",
                next_step="only a host that is out of service can be activated",
                host=host["name"],
                state=host["state"],
            )
        await hosts.move(tx.connection, host["id"], HostEvent.ACTIVATE, "being activated", tx.now)
        order = ActivateHostOrder(
            operation_id=tx.operation_id,
            context=tx.context,
            policy=policy_of(cluster),
            host=host_ref(host),
        )
        locks = (("host", host["id"]),)
        return Accepted("host", host["id"], host["name"], host["cluster_id"], locks, order)

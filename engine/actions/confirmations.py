"""A person's word that a host is dead, where no controller can prove it."""

from dataclasses import dataclass
from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.errors import Conflict, Refused
from domain.inventory import CONFIRMATION, Confirmation, HostState, PowerReading
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx, post_once
from engine.actions.hosts import host_facts, host_target
from engine.closing import LOOK_AGAIN
from store import incidents, inventory, observations, plumbing
from store.ids import new_id
from store.rows import Row


class Word(Params):
    """How it was seen that a host is off."""

    reason: str = Field(min_length=3, max_length=1000)


class ConfirmHostDead(Word):
    """I have seen that this host is off and stays off, and I say how."""

    host_id: UUID


@dataclass(frozen=True)
class Judged:
    """The host and the incident that its failure is judged in."""

    host: Row
    incident: Row


class ConfirmHostDeadAction(Action[ConfirmHostDead, Judged]):
    """`host.confirm_dead`: evidence for the open incident; any sign of life refuses it."""

    params = ConfirmHostDead
    kind = "host.confirm_dead"
    permission = Permission.HOST_CONFIRM_DEAD
    priority = PriorityClass.RECOVERY
    idempotent = True
    retryable = False

    async def plan(self, tx: Tx, params: ConfirmHostDead, problems: Problems) -> Plan[Judged]:
        """Check that its death is in question, and that nothing of it shows life."""
        host = (await host_facts(tx, params.host_id)).host
        incident = await incidents.find_open(tx.connection, host["id"], host["epoch"])
        if incident is None:
            raise _nothing_to_confirm(host)
        if incident["phase"] not in ("decide", "prove"):
            problems.append(_proven(host))
        if host["own_host"]:
            problems.append(_own(host))
        problems.extend(await _signs_of_life(tx, host))
        steps = ("keep your word as evidence", "let the recovery judge anew")
        return Plan(
            target=host_target(host),
            facts=Judged(host, incident),
            state=HostState(host["state"]),
            steps=steps,
        )

    async def execute(self, tx: Tx, params: ConfirmHostDead, plan: Plan[Judged]) -> Done:
        """Keep the evidence and wake the recovery, which asks every channel before it acts."""
        host, incident = plan.facts.host, plan.facts.incident
        fact = {"kind": CONFIRMATION, "device": tx.context.principal, "verdict": Confirmation.DEAD}
        row = {"id": new_id(), "incident_id": incident["id"], "host_id": host["id"]}
        row |= {"epoch": host["epoch"], "took_s": 0.0, "at": tx.now, "detail": params.reason}
        await incidents.add_evidence(tx.connection, row | fact)
        await post_once(tx, incident["operation_id"], plumbing.SIGNAL, LOOK_AGAIN)
        return Done(
            summary=f"{tx.context.principal} says that {host['name']} is dead: {params.reason}",
            after={"confirmed": params.reason},
            data={"incident_id": str(incident["id"])},
        )

    def forbidden(
        self, params: ConfirmHostDead, plan: Plan[Judged], allowed: tuple[str, ...]
    ) -> Refused:
        """Only the death of a host that is silent is in question."""
        return _nothing_to_confirm(plan.facts.host)


async def _signs_of_life(tx: Tx, host: Row) -> list[Refused]:
    found: list[Refused] = []
    monitors = {row["name"]: row for row in await observations.monitors(tx.connection)}
    for seen in await observations.latest(tx.connection, host["id"]):
        live = monitors[seen["monitor"]]["gone_at"] is None
        if live and seen["verdict"] in observations.HEARD:
            found.append(_heard(host, seen))
    for device in await inventory.listing(tx.connection, "fence_device", host_id=host["id"]):
        if device["last_reading"] == PowerReading.ON:
            found.append(_powered(host, device))
    return found


def _nothing_to_confirm(host: Row) -> Conflict:
    return Conflict(
        "NO_OPEN_INCIDENT",
        f"{host['name']} is {host['state']}, and no failure of it is being judged",
        next_step="confirm only the death of a host that the engine waits for: "
        "`holdfast incident list`",
        host=host["name"],
        state=host["state"],
    )


def _proven(host: Row) -> Conflict:
    return Conflict(
        "PROVEN_ALREADY",
        f"{host['name']} is proven dead already; its VMs are being started elsewhere",
        next_step="follow it with `holdfast incident show`",
        host=host["name"],
    )


def _own(host: Row) -> Conflict:
    return Conflict(
        "OWN_HOST",
        f"the engine itself runs on {host['name']}, so it is alive",
        next_step="`holdfast host edit --not-own-host` if that is not so any more",
        host=host["name"],
    )


def _heard(host: Row, seen: Row) -> Conflict:
    return Conflict(
        "SIGN_OF_LIFE",
        f"{host['name']} answered {seen['monitor']} in its last round",
        next_step="go and look again: it is the wrong host, or it is not off",
        host=host["name"],
        monitor=seen["monitor"],
    )


def _powered(host: Row, device: Row) -> Conflict:
    return Conflict(
        "POWER_ON",
        f"{device['name']} says that the power of {host['name']} is on",
        next_step="cut the power at the machine and wait until the device reads off; if it is "
        "another machine's, remove it with `holdfast fence remove`",
        host=host["name"],
        device=device["name"],
    )

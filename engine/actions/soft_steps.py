"""Restarting a host's libvirtd over SSH, as a person or a monitor asks for it."""

from datetime import timedelta
from uuid import UUID

from domain.context import PriorityClass
from domain.errors import Conflict
from domain.inventory import HostState
from domain.locks import exclusive
from domain.orders import RestartLibvirtdOrder
from domain.permissions import Permission
from domain.soft_step import WINDOW_S, Hung, No, SoftFacts, why_not
from domain.ssh_access import address_of
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.hosts import RESTART, HostFacts, host_facts, host_target
from engine.refs import host_ref, policy_of
from engine.soft_views import tries_of
from store import inventory, migrating, soft_steps
from store.rows import Row


class RestartLibvirtd(Params):
    """Restart a host's libvirtd over SSH; its guests run on.

    `hung` is the monitor's word that libvirt was silent behind an open door; then all that keeps
    the engine from doing so by itself counts, too.
    """

    host_id: UUID
    hung: Hung | None = None


class RestartLibvirtdAction(Action[RestartLibvirtd, HostFacts]):
    """`host.restart_libvirtd`: never evidence of a death, and never followed by a fence."""

    params = RestartLibvirtd
    kind = RESTART
    own_fields = frozenset({"hung"})
    permission = Permission.HOST_OPERATE
    priority = PriorityClass.PERSON
    workflow = "RestartLibvirtd"
    audited = False  # monitors ask again and again; the reason stands on the host

    async def plan(self, tx: Tx, params: RestartLibvirtd, problems: Problems) -> Plan[HostFacts]:
        """Collect what speaks against it; all of it is asked once more when it is claimed."""
        facts = await host_facts(tx, params.host_id)
        noes = why_not(await _soft_facts(tx, facts, params.hung))
        problems.extend(_refusal(tx, facts, no) for no in noes)
        return Plan(
            target=host_target(facts.host),
            facts=facts,
            state=HostState(facts.host["state"]),
            locks=(exclusive("host", facts.host["id"]),),
            steps=("restart libvirtd over SSH", "wait until it answers, with all its guests"),
        )

    async def execute(self, tx: Tx, params: RestartLibvirtd, plan: Plan[HostFacts]) -> Done:
        """Order it."""
        order = RestartLibvirtdOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(plan.facts.host),
            hung=params.hung,
        )
        return Done(order=order, data={"automatic": params.hung is not None})

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Give a soft step an end whose workflow is gone; what was asked of the host stays so."""
        why = "its workflow was ended; libvirtd may have been restarted"
        key = (operation["id"], operation["attempt"])
        ended = await soft_steps.end(tx.connection, *key, "cancelled", why, tx.now)
        return "nothing was done yet" if ended is None else why


async def _soft_facts(tx: Tx, facts: HostFacts, hung: Hung | None) -> SoftFacts:
    host, cluster = facts.host, facts.cluster
    began = tx.now - timedelta(seconds=WINDOW_S)
    known = await soft_steps.since(tx.connection, host["id"], began)
    tries = tries_of(known, tx.now)
    runs = await migrating.naming(tx.connection, host["id"])
    vms = await inventory.get_many(tx.connection, "vm", [run["vm_id"] for run in runs])
    return SoftFacts(
        host=host["name"],
        state=HostState(host["state"]),
        epoch=host["epoch"],
        access=await _reachable(tx, host),
        armed=cluster["armed"],
        enabled=cluster["soft_step"],
        hung=hung,
        silence_s=policy_of(cluster).timing.non_responsive_after_s,
        hearing=tuple(await soft_steps.hearing(tx.connection, host["id"])),
        moving=tuple(sorted(vm["name"] for vm in vms.values())),
        tries_ago_s=tries.ago_s,
        lost_guests=tries.lost_guests,
    )


async def _reachable(tx: Tx, host: Row) -> bool:
    known = await soft_steps.access_of(tx.connection, host["id"])
    return known is not None and address_of(host["uri"]) is not None


def _refusal(tx: Tx, facts: HostFacts, no: No) -> Conflict:
    detail = no.detail
    if no.wait_s is not None:
        at = tx.now + timedelta(seconds=no.wait_s)
        detail += f"; the next time is not before {at:%H:%M:%S} UTC"
    return Conflict(
        no.code, detail, next_step=no.next_step, host=facts.host["name"], wait_s=no.wait_s
    )

"""Taking a host out of service without stopping its VMs."""

from uuid import UUID

from domain.errors import Conflict
from domain.hosts import HostEvent
from domain.inventory import HostState
from domain.locks import exclusive
from domain.orders import MaintainHostOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.hosts import HostFacts, host_facts, host_target
from engine.closing import MAINTAIN
from engine.refs import host_ref, policy_of
from store import hosts
from store.rows import Row


class MaintainHost(Params):
    """Move every VM of a host elsewhere, then take it out of service."""

    host_id: UUID


class MaintainHostAction(Action[MaintainHost, HostFacts]):
    """`host.maintain`: refused unless the host is up."""

    params = MaintainHost
    kind = MAINTAIN
    permission = Permission.HOST_OPERATE
    workflow = "MaintainHost"
    idempotent = True
    pausable = True
    reopens = True  # its host would be left half out of service

    async def plan(self, tx: Tx, params: MaintainHost, problems: Problems) -> Plan[HostFacts]:
        """Check that the host is in service."""
        facts = await host_facts(tx, params.host_id)
        mine = tx.attempt > 1 and facts.host["state"] == HostState.PREPARING_MAINTENANCE
        return Plan(
            target=host_target(facts.host),
            facts=facts,
            # A later try goes on with the host as an earlier one has left it.
            state=HostState.UP if mine else HostState(facts.host["state"]),
            locks=(exclusive("host", facts.host["id"]),),
            steps=("give it no new VMs", "move its VMs elsewhere", "take it out of service"),
        )

    async def execute(self, tx: Tx, params: MaintainHost, plan: Plan[HostFacts]) -> Done:
        """Give the host no new VMs from now on, and order the rest."""
        host = plan.facts.host
        why = tx.context.reason or "a person takes it out of service"
        going_on = host["state"] == HostState.PREPARING_MAINTENANCE
        moved = await hosts.move(tx.connection, host["id"], HostEvent.DRAIN, why, tx.now)
        if not moved and not going_on:
            raise self.forbidden(params, plan, (HostState.UP.value,))
        tx.facts.forget("host", host["id"])
        order = MaintainHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(host),
        )
        after = {"state": HostState.PREPARING_MAINTENANCE.value}
        return Done(order, before={"state": host["state"]}, after=after)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Let the host serve on."""
        why = "its maintenance was cancelled"
        await hosts.move(tx.connection, operation["target_id"], HostEvent.STAY, why, tx.now)
        return "the host serves on"

    def forbidden(
        self, params: MaintainHost, plan: Plan[HostFacts], allowed: tuple[str, ...]
    ) -> Conflict:
        """It is not in service, or not reliably so."""
        host = plan.facts.host
        return Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}; only a host that is up can be drained",
            next_step="wait until it is up, or look at its incidents",
            host=host["name"],
            state=host["state"],
        )

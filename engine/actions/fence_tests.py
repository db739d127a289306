"""The test of a host's fence devices, as a person asks for it."""

from uuid import UUID

from domain.context import PriorityClass
from domain.inventory import HostState
from domain.orders import CheckFencingOrder
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.hosts import HostFacts, host_facts, host_target
from engine.refs import host_ref, policy_of


class CheckFencing(Params):
    """Ask every fence device of a host for its status, and which machine it manages."""

    host_id: UUID


class CheckFencingAction(Action[CheckFencing, HostFacts]):
    """`host.check_fencing`: it only reads, so it needs no lock and is allowed in every state."""

    params = CheckFencing
    kind = "host.check_fencing"
    permission = Permission.HOST_OPERATE
    priority = PriorityClass.PERSON
    workflow = "CheckFencing"
    idempotent = True

    async def plan(self, tx: Tx, params: CheckFencing, problems: Problems) -> Plan[HostFacts]:
        """Nothing speaks against it."""
        facts = await host_facts(tx, params.host_id)
        return Plan(
            target=host_target(facts.host),
            facts=facts,
            state=HostState(facts.host["state"]),
            steps=("ask each device for its status and machine", "compare it with the host's"),
        )

    async def execute(self, tx: Tx, params: CheckFencing, plan: Plan[HostFacts]) -> Done:
        """Order it."""
        order = CheckFencingOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(plan.facts.host),
        )
        return Done(order=order)

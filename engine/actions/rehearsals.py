"""The rehearsal of a host's fence devices: a real off and on, while nothing runs there."""

from uuid import UUID

from domain.errors import Conflict, Refused
from domain.inventory import HostState
from domain.locks import exclusive, shared
from domain.operations import Problem
from domain.orders import RehearseFencingOrder
from domain.permissions import Permission
from domain.rehearsal import Rehearsed, switch_it_on
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.hosts import HostFacts, host_facts, host_target
from engine.refs import host_ref, policy_of
from store import inventory, runs
from store.rows import Row


class RehearseFencing(Params):
    """Switch a host in maintenance off and on again through each level of its fence devices."""

    host_id: UUID


class RehearseFencingAction(Action[RehearseFencing, HostFacts]):
    """`host.rehearse_fencing`: refused unless the host is in maintenance and empty."""

    params = RehearseFencing
    kind = "host.rehearse_fencing"
    permission = Permission.HOST_OPERATE
    workflow = "RehearseFencing"
    idempotent = True
    reopens = True  # its host would be left off

    async def plan(self, tx: Tx, params: RehearseFencing, problems: Problems) -> Plan[HostFacts]:
        """Check that nobody is hurt: neither a VM nor the engine itself."""
        facts = await host_facts(tx, params.host_id)
        host = facts.host
        devices = await inventory.listing(tx.connection, "fence_device", host_id=host["id"])
        there = await runs.active_runs(tx.connection, host["id"])
        if host["own_host"]:
            problems.append(_own(host))
        if there:
            problems.append(_not_empty(host, len(there)))
        if not devices:
            problems.append(_no_device(host))
        return Plan(
            target=host_target(host),
            facts=facts,
            state=HostState(host["state"]),
            locks=(
                exclusive("host", host["id"]),
                shared("cluster", host["cluster_id"]),
                *(shared("fence_device", device["id"]) for device in devices),
            ),
            steps=("test its devices", "cut and bring back the host, level by level"),
        )

    async def execute(self, tx: Tx, params: RehearseFencing, plan: Plan[HostFacts]) -> Done:
        """Order it."""
        order = RehearseFencingOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(plan.facts.host),
        )
        return Done(order=order)

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Nothing is taken back here: only a later try, or a person, switches the host on."""
        cut = await _cut(tx, operation)
        if not cut:
            return "no device is left cut"
        return f"{operation['target_name']} may be off: {', '.join(cut)} cut it"

    async def left(self, tx: Tx, operation: Row) -> Problem | None:
        """The host may be off."""
        cut, name = await _cut(tx, operation), operation["target_name"]
        if not cut:
            return None
        return Problem(
            code="HOST_LEFT_OFF",
            detail=f"{name} was cut by {', '.join(cut)} and is not known to be back, and no"
            " workflow follows it",
            next_step=switch_it_on(name),
        )

    def forbidden(
        self, params: RehearseFencing, plan: Plan[HostFacts], allowed: tuple[str, ...]
    ) -> Refused:
        """It may serve VMs."""
        host = plan.facts.host
        return Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}; only a host in maintenance is switched off"
            " to rehearse",
            next_step=f"holdfast host maintain {host['name']}",
            host=host["name"],
            state=host["state"],
        )


async def _cut(tx: Tx, operation: Row) -> list[str]:
    """The devices that are cut, of an operation that may have cut them."""
    if operation["run_id"] is None and operation["attempt"] == 1:
        return []
    rows = await inventory.listing(
        tx.connection, "fence_device", host_id=operation["target_id"], rehearsal=Rehearsed.CUT.value
    )
    return [row["name"] for row in rows]


def _own(host: Row) -> Conflict:
    return Conflict(
        "OWN_HOST",
        f"the engine itself runs on {host['name']}, and would go off with it",
        next_step="`holdfast host edit --not-own-host` if that is not so any more",
        host=host["name"],
    )


def _not_empty(host: Row, count: int) -> Conflict:
    return Conflict(
        "HOST_NOT_EMPTY",
        f"{count} VMs stand on {host['name']} and would lose their power",
        next_step=f"holdfast host maintain {host['name']}",
        host=host["name"],
    )


def _no_device(host: Row) -> Conflict:
    return Conflict(
        "NO_FENCE_DEVICE",
        f"{host['name']} has no fence device",
        next_step="add one with `holdfast fence add`",
        host=host["name"],
    )

"""Shutting a host down, or rebooting it, by plan: its VMs are seen to first."""

from typing import ClassVar, TypeVar
from uuid import UUID

from domain.errors import Conflict, Refused
from domain.hosts import HostEvent
from domain.inventory import HostState
from domain.locks import exclusive
from domain.orders import ShutDownHostOrder
from domain.permissions import Permission
from domain.planned import PlannedVms, resolved
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx
from engine.actions.hosts import HostFacts, host_facts, host_target
from engine.closing import REBOOT, SHUTDOWN
from engine.refs import host_ref, policy_of
from store import hosts, inventory, planned
from store.rows import Row

OUT = (HostState.PREPARING_MAINTENANCE, HostState.MAINTENANCE)
"""States in which an earlier try may have left its host."""

EMPTY = {
    PlannedVms.MIGRATE: "move its VMs elsewhere",
    PlannedVms.FAILOVER: "shut its VMs down, start them on other hosts",
    PlannedVms.FREEZE: "shut its VMs down; they wait for it",
}


class VmsPolicy(Params):
    """What becomes of the VMs that run on the host."""

    vms: PlannedVms = PlannedVms.CONDITIONAL


class PowersDown(VmsPolicy):
    """The same for one host."""

    host_id: UUID


class ShutdownHost(PowersDown):
    """Empty a host and switch its power off."""


class RebootHost(PowersDown):
    """Empty a host, switch its power off and on, and bring it back into service."""


P = TypeVar("P", bound=PowersDown)


class PowerDownAction(Action[P, HostFacts]):
    """What a shutdown and a reboot have in common.

    allowed_in  the states in which it is allowed, in words, and what may be done with such a host
    otherwise   what to do in any other
    """

    permission = Permission.HOST_OPERATE
    workflow = "ShutDownHost"
    idempotent = True
    pausable = True
    reopens = True  # its host would be left half out of service
    registered = False
    reboots: ClassVar[bool]
    allowed_in: ClassVar[str]
    otherwise: ClassVar[str]

    async def plan(self, tx: Tx, params: P, problems: Problems) -> Plan[HostFacts]:
        """Check that the host is in service, and that its power can be switched."""
        facts = await host_facts(tx, params.host_id)
        host = facts.host
        problems.extend(await _no_power(tx, host))
        # A later try goes on with the host as an earlier one has left it.
        mine = tx.attempt > 1 and host["state"] in OUT
        back = ("switch it on, read it back", "wait for its new boot", "settle it, admit it")
        return Plan(
            target=host_target(host),
            facts=facts,
            state=HostState.UP if mine else HostState(host["state"]),
            locks=(exclusive("host", host["id"]),),
            steps=(
                "give it no new VMs",
                EMPTY[resolved(params.vms, reboot=self.reboots)],
                "switch its power off, read it back",
                *(back if self.reboots else ()),
            ),
        )

    async def execute(self, tx: Tx, params: P, plan: Plan[HostFacts]) -> Done:
        """Give the host no new VMs from now on, and order the rest."""
        host = plan.facts.host
        why = tx.context.reason or f"a person {'reboots it' if self.reboots else 'shuts it down'}"
        moved = await hosts.move(tx.connection, host["id"], HostEvent.DRAIN, why, tx.now)
        if not moved and host["state"] not in OUT:
            raise self.forbidden(params, plan, ())
        await planned.begin_anew(tx.connection, host["id"])
        tx.facts.forget("host", host["id"])
        order = ShutDownHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_of(plan.facts.cluster),
            host=host_ref(host),
            vms=resolved(params.vms, reboot=self.reboots),
            reboot=self.reboots,
        )
        state = HostState.PREPARING_MAINTENANCE.value if moved else host["state"]
        return Done(order, before={"state": host["state"]}, after={"state": state})

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Let the host serve on, where it still does; else it is left out of service."""
        host_id, why = operation["target_id"], "its shutdown was cancelled"
        if await hosts.move(tx.connection, host_id, HostEvent.STAY, why, tx.now):
            return "the host serves on"
        epoch = operation["order"]["host"]["epoch"]
        if await planned.leave_out(tx.connection, host_id, epoch, operation["id"], why, tx.now):
            return "the host is left out of service"
        host = await inventory.get(tx.connection, "host", host_id)
        return "its host is gone" if host is None else f"the host is left {host['state']}"

    def forbidden(self, params: P, plan: Plan[HostFacts], allowed: tuple[str, ...]) -> Conflict:
        """It is not in service, or not reliably so."""
        host = plan.facts.host
        return Conflict(
            "HOST_STATE_FORBIDS",
            f"{host['name']} is {host['state']}; only a host that is {self.allowed_in}",
            next_step=self.otherwise,
            host=host["name"],
            state=host["state"],
        )


class ShutdownHostAction(PowerDownAction[ShutdownHost]):
    """`host.shutdown`: refused unless the host is up, or in maintenance already."""

    params = ShutdownHost
    kind = SHUTDOWN
    registered = True
    reboots = False
    allowed_in = "up or in maintenance can be shut down"
    otherwise = "wait until it is up, or look at its incidents"


class RebootHostAction(PowerDownAction[RebootHost]):
    """`host.reboot`: refused unless the host is up."""

    params = RebootHost
    kind = REBOOT
    registered = True
    reboots = True
    allowed_in = "up can be rebooted"
    otherwise = "wait until it is up; one in maintenance is shut down, then activated"


async def _no_power(tx: Tx, host: Row) -> tuple[Refused, ...]:
    by_hand = f"`holdfast host maintain {host['name']}` empties it; then switch it off by hand"
    if host["own_host"]:
        return (
            Conflict(
                "OWN_HOST",
                f"the engine itself runs on {host['name']}, and would switch itself off",
                next_step=by_hand,
                host=host["name"],
            ),
        )
    if await inventory.listing(tx.connection, "fence_device", host_id=host["id"]):
        return ()
    return (
        Conflict(
            "NO_FENCE_DEVICE",
            f"{host['name']} has no fence device, so nothing can switch its power",
            next_step=f"add one with `holdfast fence add`, or {by_hand}",
            host=host["name"],
        ),
    )

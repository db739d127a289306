"""What people and other monitors do meanwhile: through the engine's door, and behind its back."""

from typing import Any
from uuid import UUID

from domain.context import ActionContext, PriorityClass
from domain.disarming import DisarmMode
from domain.planned import PlannedVms
from engine.actions.approvals import LASTS_S, ApproveFence, WithdrawApproval
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.maintain_host import MaintainHost
from engine.actions.migrate_vm import MigrateVm
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.shut_down_host import RebootHost, ShutdownHost
from engine.actions.vms import StartVm, StopVm
from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.rows import OPEN
from simulator.world.host import VirtualHost

MONITOR = ActionContext(
    principal="monitor:late", correlation_id="late", priority=PriorityClass.RECOVERY
)


def vm_of(troubles: Troubles, fault: Fault) -> UUID:
    """The VM that a fault is about."""
    found: UUID = troubles.stage.rows.find("vm", fault.subject)["id"]
    return found


def home_of(troubles: Troubles, vm_id: UUID) -> VirtualHost | None:
    """Where a copy of it lives, else where it is defined."""
    hosts = [host for host in troubles.stage.centre.hosts.values() if vm_id in host.domains]
    living = [host for host in hosts if host.domains[vm_id].alive]
    return next(iter((*living, *hosts)), None)


def destroy(troubles: Troubles, fault: Fault) -> None:
    """`virsh destroy`, by a person."""
    vm_id = vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    if home is not None:
        troubles.stage.centre.destroy_by_hand(home, vm_id)


def undefine(troubles: Troubles, fault: Fault) -> None:
    """`virsh destroy` and `virsh undefine`, by a person."""
    vm_id = vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    if home is None:
        return
    destroy(troubles, fault)
    troubles.stage.centre.undefine_by_hand(home, vm_id)


def start(troubles: Troubles, fault: Fault) -> None:
    """Defined and started on another host, by a person: outside of the promise."""
    centre, vm_id = troubles.stage.centre, vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    for host in centre.hosts.values():
        if home is not None and host is not home and centre.copy_by_hand(home, host, vm_id):
            troubles.touched[vm_id] = "started by hand"
            return


def foreign(troubles: Troubles, fault: Fault) -> None:
    """A guest that the engine does not know comes to run on a host."""
    host = troubles.stage.centre.hosts[fault.subject]
    if host.up:
        troubles.stage.centre.add_foreign(host, f"foreign-{fault.subject}")


def disarm(troubles: Troubles, fault: Fault) -> None:
    """A person forbids automatic action, in some `mode`."""
    _switch(troubles, armed=False, mode=DisarmMode(str(fault.args.get("mode", "hold"))))


def arm(troubles: Troubles, _fault: Fault) -> None:
    """A person allows it again."""
    _switch(troubles, armed=True)


def _switch(troubles: Troubles, *, armed: bool, mode: DisarmMode = DisarmMode.HOLD) -> None:
    for cluster in troubles.stage.rows.table("cluster"):
        troubles.ask(ArmCluster(cluster_id=cluster["id"], armed=armed, mode=mode))


def approve(troubles: Troubles, fault: Fault) -> None:
    """A person says that a silent host may be fenced though the storm guard holds it back."""
    host = troubles.stage.rows.find("host", fault.subject)
    lasts_s = int(fault.args.get("for_s", LASTS_S))
    troubles.ask(ApproveFence(host_id=host["id"], reason="its rack is dark", lasts_s=lasts_s))


def withdraw(troubles: Troubles, fault: Fault) -> None:
    """A person takes back what was approved."""
    host = troubles.stage.rows.find("host", fault.subject)
    troubles.ask(WithdrawApproval(host_id=host["id"]))


def report(troubles: Troubles, fault: Fault) -> None:
    """A report of a host's failure comes twice, or late: `epochs_ago` of an epoch that is over."""
    host = troubles.stage.rows.find("host", fault.subject)
    epoch = max(0, host["epoch"] - int(fault.args.get("epochs_ago", 0)))
    told = RecoverHost(host_id=host["id"], epoch=epoch, why="reported late", reported_by="late")
    for _ in range(int(fault.args.get("times", 2))):
        troubles.ask(told, MONITOR)


def activate(troubles: Troubles, fault: Fault) -> None:
    """A person brings a host into service."""
    host = troubles.stage.rows.find("host", fault.subject)
    troubles.ask(ActivateHost(host_id=host["id"]))


def start_vm(troubles: Troubles, fault: Fault) -> None:
    """A person starts a VM through the engine."""
    troubles.ask(StartVm(vm_id=vm_of(troubles, fault)))


def stop_vm(troubles: Troubles, fault: Fault) -> None:
    """A person stops a VM through the engine."""
    troubles.ask(StopVm(vm_id=vm_of(troubles, fault), force=bool(fault.args.get("force"))))


def migrate_vm(troubles: Troubles, fault: Fault) -> None:
    """A person moves a VM to another host, which the engine chooses."""
    troubles.ask(MigrateVm(vm_id=vm_of(troubles, fault)))


def maintain(troubles: Troubles, fault: Fault) -> None:
    """A person takes a host out of service."""
    host = troubles.stage.rows.find("host", fault.subject)
    troubles.ask(MaintainHost(host_id=host["id"]))


def shut_down(troubles: Troubles, fault: Fault) -> None:
    """A person shuts a host down by plan, its VMs by one of the policies."""
    host = troubles.stage.rows.find("host", fault.subject)
    vms = PlannedVms(str(fault.args.get("vms", PlannedVms.CONDITIONAL)))
    troubles.ask(ShutdownHost(host_id=host["id"], vms=vms))


def reboot(troubles: Troubles, fault: Fault) -> None:
    """A person reboots a host by plan, its VMs by one of the policies."""
    host = troubles.stage.rows.find("host", fault.subject)
    vms = PlannedVms(str(fault.args.get("vms", PlannedVms.CONDITIONAL)))
    troubles.ask(RebootHost(host_id=host["id"], vms=vms))


def cancel(troubles: Troubles, fault: Fault) -> None:
    """A person cancels the newest open operation of a kind."""
    found = [op for op in _operations(troubles, fault.subject) if op["state"] in OPEN]
    if found:
        troubles.ask(CancelOperation(operation_id=found[-1]["id"]))


def retry(troubles: Troubles, fault: Fault) -> None:
    """A person retries the newest operation of a kind that has failed or was cancelled."""
    found = [op for op in _operations(troubles, fault.subject) if op["state"] not in OPEN]
    bad = [op for op in found if op["state"] != "succeeded"]
    if bad:
        _retry(troubles, bad[-1]["id"])


def _retry(troubles: Troubles, operation_id: UUID) -> None:
    wanted: Params = RetryOperation(operation_id=operation_id)
    troubles.ask(wanted)


def _operations(troubles: Troubles, kind: str) -> list[dict[str, Any]]:
    return troubles.stage.rows.table("operation", "kind = ? ORDER BY rowid", kind)


PEOPLE: dict[str, Kind] = {
    "hand.destroy": Kind("a person destroys a domain", destroy),
    "hand.undefine": Kind("a person destroys and undefines a domain", undefine),
    "hand.start": Kind("a person starts a copy of a VM elsewhere", start, outside=True),
    "hand.foreign": Kind("a foreign guest comes to run on a host", foreign),
    "person.disarm": Kind("automatic action is forbidden, and allowed again", disarm, arm),
    "person.approve": Kind("a person approves of a fence that is held", approve, withdraw),
    "person.activate": Kind("a person activates a host", activate),
    "person.start_vm": Kind("a person starts a VM", start_vm),
    "person.stop_vm": Kind("a person stops a VM", stop_vm),
    "person.migrate_vm": Kind("a person moves a VM to another host", migrate_vm),
    "person.maintain": Kind("a person takes a host out of service", maintain),
    "person.shutdown": Kind("a person shuts a host down by plan", shut_down),
    "person.reboot": Kind("a person reboots a host by plan", reboot),
    "person.cancel": Kind("a person cancels an operation", cancel),
    "person.retry": Kind("a person retries an operation", retry),
    "monitor.late_report": Kind("a report comes twice, or about an epoch that is over", report),
}

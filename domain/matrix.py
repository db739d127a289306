"""In which states of its entity each action is allowed: one table an entity.

Every state of every entity has a row, and what is not listed is refused. The tables name kinds of
actions; an action that creates its entity or that is allowed in every state still stands in them,
so that reading one column tells all that can be done.
"""

from collections.abc import Mapping

from domain.inventory import HostState as H
from domain.inventory import VmState as V
from domain.operations import OperationState as O

REBOOTED = "host.activate_rebooted"
"""`host.activate` as a monitor asks for it: the host lost the mark of its boot while in service.

Only of a host that is in service (`domain.hosts.MARKED`): a monitor whose view is old must bring
none back that a person has taken out of it, or that a recovery holds to be dead.
"""

HOST_ALWAYS = frozenset({"host.edit", "host.check_fencing"})
JUDGED = frozenset({"host.confirm_dead", "host.approve_fence", "host.withdraw_approval"})
"""What people may say while the failure of a host is judged."""
ACTIVATE = frozenset({"host.activate"})
HOST: Mapping[str, frozenset[str]] = {
    H.UP: HOST_ALWAYS
    | {"vm.import", "host.maintain", "host.shutdown", "host.reboot", "host.restart_libvirtd"}
    | {REBOOTED},
    H.CONNECTING: HOST_ALWAYS | JUDGED | {"host.recover", "host.restart_libvirtd", REBOOTED},
    H.NON_RESPONSIVE: HOST_ALWAYS | ACTIVATE | JUDGED | {"host.recover"},
    H.FENCING: HOST_ALWAYS | JUDGED,
    H.DOWN: HOST_ALWAYS | ACTIVATE | {"host.remove", "host.recover"},
    H.RECONCILING: HOST_ALWAYS | ACTIVATE,
    H.MAINTENANCE: HOST_ALWAYS
    | ACTIVATE
    | {"host.remove", "host.rehearse_fencing", "host.shutdown"},
    H.PREPARING_MAINTENANCE: HOST_ALWAYS | ACTIVATE | JUDGED | {"host.recover", REBOOTED},
    H.NON_OPERATIONAL: HOST_ALWAYS | ACTIVATE | {"host.remove", "host.recover"},
    H.ERROR: HOST_ALWAYS | ACTIVATE | {"host.remove"},
}

VM_ALWAYS = frozenset({"vm.edit"})
VM: Mapping[str, frozenset[str]] = {
    V.DOWN: VM_ALWAYS | {"vm.start", "vm.delete", "vm.end_copy"},
    V.POWERING_UP: VM_ALWAYS | {"vm.stop"},
    V.UP: VM_ALWAYS | {"vm.stop", "vm.migrate", "vm.recover"} | {"vm.end_copy", "vm.adopt_copy"},
    V.MIGRATING: VM_ALWAYS,
    V.POWERING_DOWN: VM_ALWAYS | {"vm.stop"},
    V.UNKNOWN: VM_ALWAYS,
}

ENDED_BADLY = frozenset({"operation.retry"})
OPERATION: Mapping[str, frozenset[str]] = {
    O.PENDING: frozenset({"operation.cancel", "operation.prioritise"}),
    O.WAITING: frozenset({"operation.cancel", "operation.pause", "operation.prioritise"}),
    O.RUNNING: frozenset({"operation.cancel", "operation.pause", "operation.prioritise"}),
    O.PAUSED: frozenset({"operation.cancel", "operation.resume", "operation.prioritise"}),
    O.CANCELLING: frozenset({"operation.cancel"}),
    O.SUCCEEDED: frozenset(),
    O.FAILED: ENDED_BADLY,
    O.CANCELLED: ENDED_BADLY | {"operation.cancel"},
    O.NEEDS_ATTENTION: ENDED_BADLY,
}

MATRICES: Mapping[str, Mapping[str, frozenset[str]]] = {
    "host": HOST,
    "vm": VM,
    "operation": OPERATION,
}


def allowed_in(entity: str, kind: str) -> tuple[str, ...]:
    """The states of an entity in which a kind of action is allowed, in the table's order."""
    return tuple(str(state) for state, kinds in MATRICES[entity].items() if kind in kinds)


def is_allowed(entity: str, kind: str, state: str) -> bool:
    """Whether a kind of action is allowed on an entity in a state."""
    return kind in MATRICES[entity][state]

"""Who may do what: roles are sets of permissions, as one table.

A permission is `object.verb`, named by the action that needs it. Roles are given to principals by
whoever authenticates them; the engine itself only asks the table.
"""

from enum import StrEnum

from domain.errors import Denied


class Permission(StrEnum):
    """What an action needs its principal to be allowed."""

    CLUSTER_CONFIGURE = "cluster.configure"
    CLUSTER_ARM = "cluster.arm"
    HOST_CONFIGURE = "host.configure"
    HOST_OPERATE = "host.operate"
    HOST_CONFIRM_DEAD = "host.confirm_dead"
    HOST_APPROVE_FENCE = "host.approve_fence"
    HOST_RECOVER = "host.recover"
    NETWORK_CONFIGURE = "network.configure"
    FENCE_CONFIGURE = "fence.configure"
    VM_CONFIGURE = "vm.configure"
    VM_OPERATE = "vm.operate"
    VM_RECOVER = "vm.recover"
    OPERATION_CONTROL = "operation.control"


class Role(StrEnum):
    """What a principal is to the engine."""

    ADMIN = "admin"
    OPERATOR = "operator"  # runs things, does not configure the data centre
    AUTOMATION = "automation"  # a program that acts for people, after them
    VIEWER = "viewer"
    MONITOR = "monitor"  # the engine's own eyes
    ENGINE = "engine"  # the engine's own steps


OWN_PARTS = frozenset({Role.MONITOR, Role.ENGINE})
"""Roles of the engine's own parts, whom nobody can ask."""

EVERYTHING = frozenset(Permission)
RUNNING = frozenset(
    {
        Permission.CLUSTER_ARM,
        Permission.HOST_APPROVE_FENCE,
        Permission.HOST_CONFIRM_DEAD,
        Permission.HOST_OPERATE,
        Permission.VM_CONFIGURE,
        Permission.VM_OPERATE,
        Permission.OPERATION_CONTROL,
    }
)
GRANTS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: EVERYTHING,
    Role.OPERATOR: RUNNING,
    Role.AUTOMATION: RUNNING
    - {Permission.CLUSTER_ARM, Permission.HOST_APPROVE_FENCE, Permission.HOST_CONFIRM_DEAD},
    Role.VIEWER: frozenset(),
    Role.MONITOR: frozenset(
        {Permission.HOST_RECOVER, Permission.HOST_OPERATE, Permission.VM_RECOVER}
    ),
    Role.ENGINE: EVERYTHING,
}


def refuse(principal: str, role: Role, permission: Permission) -> Denied | None:
    """Why a principal may not do something, or None when it may."""
    if permission in GRANTS[role]:
        return None
    holders = sorted(r.value for r in Role if r not in OWN_PARTS and permission in GRANTS[r])
    return Denied(
        "PERMISSION_DENIED",
        f"{principal} is {role} and may not `{permission}`",
        next_step=f"ask somebody whose role has it: {', '.join(holders)}",
        principal=principal,
        role=role.value,
        permission=permission.value,
    )

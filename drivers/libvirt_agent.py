"""The guest agent of a domain, as far as the engine asks it: whether it is there."""

from uuid import UUID

import libvirt
import libvirt_qemu

from drivers.libvirt_domains import find

PING = '{"execute": "guest-ping"}'
"""Does nothing but answer (QEMU guest agent protocol reference)."""

PING_S = 2
"""Whole seconds, as libvirt counts them, for an answer. Higher: a guest without an agent holds its
connection longer. Lower: a busy guest is taken for one that is not ready."""

SILENT_CODES = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,  # not connected, or no answer in time
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # the domain has no channel for an agent
        libvirt.VIR_ERR_OPERATION_INVALID,  # it does not run
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_NO_SUPPORT,  # libvirt's test driver
        libvirt.VIR_ERR_NO_DOMAIN,
    }
)
"""Answers of libvirtd that mean: no agent answers there now."""


def agent_answers(connection: libvirt.virConnect, vm_id: UUID) -> bool:
    """Whether the domain's guest agent answers a ping; reads only."""
    domain = find(connection, vm_id)
    if domain is None:
        return False
    try:
        libvirt_qemu.qemuAgentCommand(domain, PING, PING_S, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in SILENT_CODES:
            return False
        raise
    return True

"""The guest agent of a domain, as far as the engine asks it: whether it is there."""

from uuid import UUID

import libvirt
import libvirt_qemu

from domain.readings import AgentState
from drivers.domain_xml import AGENT_CHANNEL
from drivers.hardened_xml import parse
from drivers.libvirt_domains import find

PING = '{"execute": "guest-ping"}'
"""Does nothing but answer (QEMU guest agent protocol reference)."""

PING_S = 2
"""Whole seconds, as libvirt counts them, for an answer. Higher: a guest without an agent holds its
connection longer. Lower: a busy guest is taken for one that is not ready."""

SYNC_S = 5
"""libvirt's own, before each command and whatever time that has: so long it waits until the agent
has come into step. A hung guest is found by this one."""

AGENT_S = SYNC_S + PING_S
"""The most that a question to an agent takes beside libvirtd's own answer."""

SILENT_CODES = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,  # not connected, or no answer in time
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # the domain has no channel for an agent
        libvirt.VIR_ERR_OPERATION_INVALID,  # it does not run
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_NO_SUPPORT,  # libvirt's test driver
        libvirt.VIR_ERR_NO_DOMAIN,
    }
)
"""Answers of libvirtd that mean: no agent answers there now."""

UNSYNCED = libvirt.VIR_ERR_AGENT_UNSYNCED
"""The agent answered the question that precedes each command with the number of another one.

libvirt empties the channel by it, so that what came back was written after an earlier question had
timed out: the guest was slow, and lives. Newer versions do not tell: they pass such an answer over
and wait on for the right one, so that theirs is `VIR_ERR_AGENT_UNRESPONSIVE` in the end (libvirt,
src/qemu/qemu_agent.c; marked as deprecated in virterror.h).
"""


def ask_agent(connection: libvirt.virConnect, vm_id: UUID) -> AgentState:
    """What the domain's guest agent gives to a ping; reads only.

    One that answers something else lives, though that is no answer to the ping. One that gives none
    is silent only where QEMU says that somebody in the guest has its channel open: a guest that
    boots, or whose agent was stopped, has not.
    """
    domain = find(connection, vm_id)
    if domain is None:
        return AgentState.ABSENT
    try:
        libvirt_qemu.qemuAgentCommand(domain, PING, PING_S, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == UNSYNCED:
            return AgentState.UNSYNCED
        if error.get_error_code() not in SILENT_CODES:
            raise
        return AgentState.SILENT if _channel_open(domain) else AgentState.ABSENT
    return AgentState.ANSWERS


def _channel_open(domain: libvirt.virDomain) -> bool:
    try:
        document = parse(domain.XMLDesc(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise
    targets = document.findall("./devices/channel/target")
    return any(
        target.get("name") == AGENT_CHANNEL and target.get("state") == "connected"
        for target in targets
    )

"""libvirt's errors in the engine's words: the only translation.

What counts is whether an answer was received. A lost connection after a mutating call was sent is
OutcomeUnknown; before that, or in a read, it is NoAnswer; an answer that says no is Refused.
"""

import libvirt

from domain.errors import Conflict, EngineError, NoAnswer, OutcomeUnknown

SHUT_OUT_CODES = frozenset(
    {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE}
)
"""libvirtd answers, and does not want us."""


def is_lost(error: libvirt.libvirtError, connection_alive: bool) -> bool:
    """Whether the error is that of the connection, not an answer of libvirtd."""
    return not connection_alive or error.get_error_domain() == libvirt.VIR_FROM_RPC


def lost(host: str, sent: bool, why: str) -> EngineError:
    """The error for a connection that ended, or was given up, under a call."""
    if sent:
        return OutcomeUnknown(
            "HYPERVISOR_ANSWER_LOST",
            f"{host}: a change was sent and its answer was lost: {why}",
            next_step="read the domain's state over a new connection before trying again",
            host=host,
        )
    return NoAnswer("HYPERVISOR_NO_ANSWER", f"{host}: {why}", host=host)


def not_opened(host: str, error: libvirt.libvirtError) -> EngineError:
    """The error for a connection that was not made."""
    if error.get_error_code() in SHUT_OUT_CODES:
        return answered(host, False, error)
    return lost(host, False, str(error.get_error_message() or error))


def answered(host: str, sent: bool, error: libvirt.libvirtError) -> EngineError:
    """The error for an answer of libvirtd that is not a success."""
    code = int(error.get_error_code() or 0)
    text = f"{error.get_error_message() or error} (libvirt error {code})"
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        # Another job held the object. Nothing was changed, unless it was the change that waited.
        return lost(host, sent, text)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and "Cannot access storage file" in text:
        return Conflict(
            "DISK_MISSING",
            f"{host}: {text}",
            next_step="put the file there (its folder is the same on every host of the cluster), "
            "or mount the storage on that host, or edit the VM's disks",
            host=host,
            libvirt=code,
        )
    return Conflict(
        "HYPERVISOR_REFUSED",
        f"{host}: {text}",
        next_step="see libvirtd's log on that host",
        host=host,
        libvirt=code,
    )

"""Planned shutdowns and reboots of a host: what becomes of its VMs, and when they run again.

The four policies are those of Proxmox VE. Where it stops services when their node goes, we stop
VMs; which ones come back is the same for protected and unprotected ones: all that were running.
"""

from enum import StrEnum

from domain.base import Frozen
from domain.inventory import HostState


class PlannedVms(StrEnum):
    """What becomes of the VMs of a host that a person shuts down or reboots."""

    MIGRATE = "migrate"  # moved away live
    FAILOVER = "failover"  # shut down, and started on other hosts
    FREEZE = "freeze"  # shut down, and started there again once it is back
    CONDITIONAL = "conditional"  # freeze for a reboot, failover for a shutdown


class HostPower(StrEnum):
    """How far the power of a host in maintenance is switched; None where nobody switches it."""

    GOING_OFF = "going_off"  # off was claimed, and may have been sent
    OFF = "off"  # read back
    COMING_ON = "coming_on"  # on was claimed, and may have been sent
    ON = "on"  # read back; the host has still to answer


def resolved(vms: PlannedVms, *, reboot: bool) -> PlannedVms:
    """What `conditional` stands for; every other policy stands for itself."""
    if vms is not PlannedVms.CONDITIONAL:
        return vms
    return PlannedVms.FREEZE if reboot else PlannedVms.FAILOVER


class Return(StrEnum):
    """What is next for a VM that was shut down with its host."""

    START = "start"
    WAIT = "wait"
    STOP = "stop"  # it was asked to end, and nobody sees to it any more: once more
    FORGET = "forget"  # it runs, or nobody wants it to


class ReturnFacts(Frozen):
    """One reading of a VM that was shut down with its host.

    host_state  of the host that it was shut down with; None once that was removed
    busy        somebody holds its lock
    planned     the shutdown or reboot is still under way
    stopping    of one that runs: its end was asked for
    after       a VM that it depends on, and that has not been started again yet
    """

    frozen: bool
    wanted: bool
    running: bool
    busy: bool
    planned: bool
    host_state: HostState | None
    after: bool
    stopping: bool = False


def what_next(facts: ReturnFacts) -> Return:
    """Whether to start it, by what is known of it and of its host.

    A frozen VM waits for its host. One whose host failed instead, proven dead or removed, is held
    back by it no longer.
    """
    if not facts.wanted:
        return Return.FORGET
    if facts.running:
        # It was not stopped yet, or is being stopped; afterwards, it runs.
        if facts.planned or facts.busy:
            return Return.WAIT
        return Return.STOP if facts.stopping else Return.FORGET
    if facts.busy or facts.after:
        return Return.WAIT
    holding = facts.host_state not in (None, HostState.UP, HostState.DOWN)
    return Return.WAIT if facts.frozen and holding else Return.START

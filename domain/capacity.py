"""How much memory and how many vCPUs a host may promise.

Memory that is promised twice makes guests die, CPUs that are promised twice only make them slow: so
memory is promised once unless a cluster says otherwise, and vCPUs are limited only where it says
how far. Each rule is one ratio, and it stands twice: here for whoever plans, and in the statement
that promises (`store.hosts`). Both round by the same tolerance, so that 10 CPUs at 0.7 are 7.
"""

import math

VCPU_OVERCOMMIT_LEAST = 0.1
VCPU_OVERCOMMIT_MOST = 100.0
"""The range of `vcpu_overcommit`, in vCPUs per logical CPU. More is no limit in practice."""

MEMORY_OVERCOMMIT_LEAST = 1.0
MEMORY_OVERCOMMIT_MOST = 10.0
"""The range of `memory_overcommit`, in MiB promised per MiB there is. Less would hide memory."""

TOLERANCE = 1e-6
"""In vCPUs or MiB: so little more than a product of two numbers is that product."""


def vcpus_allowed(cpus: int, overcommit: float | None) -> int | None:
    """The vCPUs that a host of so many logical CPUs may promise; None: there is no limit.

    A host that has not yet said how many CPUs it has is not bound: it has not said how much memory
    it has either, so nothing is placed there before it was admitted.
    """
    if overcommit is None or cpus <= 0:
        return None
    return math.floor(cpus * overcommit + TOLERANCE)


def memory_allowed_mib(memory_mib: int, overcommit: float) -> int:
    """The memory that a host with so much of it may promise."""
    return math.floor(memory_mib * overcommit + TOLERANCE)

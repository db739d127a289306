"""Small builders for facts of the domain: each names only what the test is about."""

from typing import Any
from uuid import UUID, uuid5

from domain.fence_budgets import FenceBudget, Scope
from domain.inventory import PowerReading
from domain.placement import Guest, Room
from domain.recovery import RecoveryFacts
from domain.storm import Approval, FenceFacts, Vote

NAMESPACE = UUID("00000000-0000-4000-8000-000000000000")
ON, OFF, UNKNOWN = PowerReading.ON, PowerReading.OFF, PowerReading.UNKNOWN


def id_of(name: str) -> UUID:
    """The id that a name has in every test."""
    return uuid5(NAMESPACE, name)


def guest(
    name: str,
    *after: str,
    memory_mib: int = 128,
    protected: bool = True,
    priority: int = 50,
    vcpus: int = 1,
) -> Guest:
    """A protected VM that depends on the VMs named in `after`."""
    return Guest(
        vm_id=id_of(name),
        name=name,
        memory_mib=memory_mib,
        protected=protected,
        priority=priority,
        depends_on=tuple(id_of(other) for other in after),
        vcpus=vcpus,
    )


def room(
    name: str,
    *,
    memory_mib: int = 1024,
    reserved_mib: int = 0,
    vms: int = 0,
    epoch: int = 1,
    **vcpus: int | None,
) -> Room:
    """An empty host with 1 GiB and no limit of vCPUs."""
    return Room(
        host_id=id_of(name),
        name=name,
        epoch=epoch,
        memory_mib=memory_mib,
        reserved_mib=reserved_mib,
        vms=vms,
        **vcpus,
    )


def vote(
    monitor: str = "m1",
    *,
    fresh: bool = True,
    silent: bool = True,
    others_seen: int = 2,
    warm: bool = True,
    assigned: bool = True,
    silent_s: float = 3600.0,
) -> Vote:
    """A vote against the host that nobody can object to."""
    said = {"fresh": fresh, "silent": silent, "warm": warm, "assigned": assigned}
    return Vote(monitor=monitor, others_seen=others_seen, silent_s=silent_s, **said)


def fence_facts(
    *votes: Vote,
    armed: bool = True,
    own_host: bool = False,
    devices: int = 1,
    hosts: int = 3,
    hosts_silent: int = 1,
    fences_in_window: int = 0,
    fences_max: int = 1,
    approval: Approval | None = None,
    **more: Any,
) -> FenceFacts:
    """h1 of three hosts is silent, and nothing speaks against cutting its power."""
    return FenceFacts(
        host="h1",
        armed=armed,
        own_host=own_host,
        devices=devices,
        hosts=hosts,
        hosts_silent=hosts_silent,
        budgets=(budget(spent=fences_in_window, most=fences_max),),
        votes=votes or (vote(),),
        approval=approval,
        **more,
    )


def budget(scope: Scope = Scope.CLUSTER, name: str = "c1", **fields: Any) -> FenceBudget:
    """The budget of a cluster of ten hosts, of which nothing is spent."""
    return FenceBudget(**{"scope": scope, "name": name, "spent": 0, "hosts": 10} | fields)


def recovery_facts(
    *readings: PowerReading | tuple[int, PowerReading],
    answers: bool = False,
    fence: FenceFacts | None = None,
) -> RecoveryFacts:
    """A reported host, its power readings (of level 1 if not said), and a free guard."""
    return RecoveryFacts(
        host="h1",
        answers=answers,
        readings=tuple(r if isinstance(r, tuple) else (1, r) for r in readings),
        fence=fence or fence_facts(devices=len(readings)),
    )

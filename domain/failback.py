"""Whether a VM is moved back to its home now: pure, every no with its code and its numbers.

A home is the host where a VM is to run best. After a failure the VM runs elsewhere; once its home
has served for a while without a break, it is moved there live. What a person decides goes first: a
VM that was put elsewhere by hand rests there.
"""

from collections.abc import Iterable
from enum import StrEnum
from uuid import UUID

from domain.affinity import Affinity, strain
from domain.base import Frozen
from domain.inventory import HostState, RunState
from domain.placement import Guest, Room

FAILBACK_AFTER_S = 600
"""For how long a home is up before VMs go back to it. Higher: they are away longer. Lower: a host
that comes and goes takes them to and fro."""

FAILBACK_AFTER_MAX_S = 7 * 24 * 3600

TRY_AGAIN_S = 60
TRY_AGAIN_MAX_S = 3600
"""First and longest wait after a failback that failed; doubled each time. Higher: a VM is away
longer. Lower: a migration that cannot succeed loads both hosts again and again."""


class Failback(StrEnum):
    """Whether a VM goes back to its home by itself."""

    OFF = "off"
    AUTO = "auto"


class FailbackFacts(Frozen):
    """One reading of a VM, its home and its cluster.

    up_s      how long the home has been up without a break, as a monitor has watched it
    no_room   why the home has no place for it, or None
    soft      names of soft rules that are kept where it runs, and would be broken at home
    going     another VM that goes to the same home
    waited_s  since its last failback failed; `wait_s` is how long is to be waited
    """

    vm: str
    mode: Failback
    rests: bool
    run_state: str | None
    host: str | None = None  # where it runs
    host_state: str | None = None
    home: str | None = None
    home_state: str | None = None
    up_s: float = 0.0
    after_s: int = FAILBACK_AFTER_S
    cluster: str
    armed: bool
    incidents: tuple[str, ...] = ()  # hosts that have one open
    home_busy: str | None = None  # what is under way or planned on it
    vm_busy: str | None = None
    no_room: str | None = None
    soft: tuple[str, ...] = ()
    going: str | None = None
    leaving: int = 0  # migrations from its host, and to its home
    coming: int = 0
    per_host: int = 2
    under_way: UUID | None = None  # the operation that takes it home
    failures: int = 0
    failed: str | None = None  # why the last one did
    waited_s: float = 0.0
    wait_s: int = 0


class Standing(Frozen):
    """GO, or why a VM is not moved home now; `tries_in_s` where a time is waited for."""

    code: str
    detail: str
    tries_in_s: float | None = None


GO, AT_HOME, UNDER_WAY, TRIES_AGAIN = "GO", "AT_HOME", "UNDER_WAY", "TRIES_AGAIN"


def try_again_after_s(failures: int) -> int:
    """How long is waited after so many failures in a row."""
    return int(min(TRY_AGAIN_S * 2.0 ** min(failures - 1, 16), TRY_AGAIN_MAX_S))


def decide(facts: FailbackFacts) -> Standing:
    """What speaks against moving the VM home first, or GO."""
    for look in (_wish, _place, _guard, _last_try, _home, _hands, _limits):
        standing = look(facts)
        if standing is not None:
            return standing
    return Standing(code=GO, detail=f"{facts.vm} is moved from {facts.host} home to {facts.home}")


def _wish(facts: FailbackFacts) -> Standing | None:
    if facts.mode is Failback.OFF:
        return Standing(code="FAILBACK_OFF", detail=f"{facts.vm} stays where it runs")
    if facts.home is None:
        return Standing(code="NO_HOME", detail=f"{facts.vm} has no home: `vm edit --home HOST`")
    return None


def _place(facts: FailbackFacts) -> Standing | None:
    if facts.under_way is not None:
        detail = f"operation {facts.under_way} moves {facts.vm} home to {facts.home}"
        return Standing(code=UNDER_WAY, detail=detail)
    if facts.host == facts.home:
        return Standing(code=AT_HOME, detail=f"{facts.vm} runs on {facts.home}")
    if facts.run_state != RunState.RUNNING:
        state = facts.run_state or "down"
        detail = f"{facts.vm} is {state}; only a VM that runs is moved"
        return Standing(code="VM_NOT_RUNNING", detail=detail)
    if facts.rests:
        detail = (
            f"a person has put {facts.vm} on {facts.host}: it stays until its next recovery, or "
            f"until `vm edit {facts.vm} --failback auto`"
        )
        return Standing(code="RESTS", detail=detail)
    return None


def _guard(facts: FailbackFacts) -> Standing | None:
    if not facts.armed:
        return Standing(code="DISARMED", detail=f"{facts.cluster} is disarmed")
    if facts.incidents:
        names = ", ".join(facts.incidents[:5])
        detail = f"{len(facts.incidents)} incidents are open in {facts.cluster}: {names}"
        return Standing(code="INCIDENT_OPEN", detail=detail)
    return None


def followers(
    affinity: Affinity, vm_id: UUID, bound: Iterable[Guest], home: Room
) -> frozenset[UUID]:
    """VMs that soft rules keep together with this one, and that follow it home.

    `bound` are those that are away from their homes and go there by themselves. None where they do
    not all fit, this one included: moving the first would part them.
    """
    named = {
        other
        for rule in affinity.rules
        if rule.together and not rule.hard and not rule.host_ids and vm_id in rule.vm_ids
        for other in rule.vm_ids
    }
    company = {
        one.vm_id: one for one in bound if one.vm_id in named and one.home_id == home.host_id
    }
    if vm_id not in company or not home.takes(*company.values()):
        return frozenset()
    return frozenset(company) - {vm_id}


def soft_broken(
    affinity: Affinity,
    vm_id: UUID,
    host_id: UUID,
    home_id: UUID,
    following: frozenset[UUID] = frozenset(),
) -> tuple[str, ...]:
    """Names of soft rules that are kept where a VM runs and would be broken at its home.

    Those `following` it are taken for being there already by the rules that keep them together, or
    each would wait for the other.
    """
    there = dict(affinity.running) | dict.fromkeys(following, home_id)
    return tuple(
        rule.name
        for rule in affinity.rules
        if not rule.hard
        and vm_id in rule.vm_ids
        and not strain(rule, vm_id, host_id, affinity.running)
        and strain(rule, vm_id, home_id, there if rule.together else affinity.running)
    )


def call_off(facts: FailbackFacts) -> Standing | None:
    """Why a move home that was ordered is given up before anything is moved, or None."""
    waits = facts.run_state == RunState.RUNNING and facts.host != facts.home
    return _guard(facts) if waits else None


def _last_try(facts: FailbackFacts) -> Standing | None:
    left_s = facts.wait_s - facts.waited_s
    if facts.failures == 0 or left_s <= 0:
        return None
    detail = f"it has failed {facts.failures} times in a row, the last time: {facts.failed}"
    return Standing(code=TRIES_AGAIN, detail=detail, tries_in_s=left_s)


def _home(facts: FailbackFacts) -> Standing | None:
    if facts.home_state != HostState.UP:
        return Standing(code="HOME_NOT_UP", detail=f"{facts.home} is {facts.home_state}")
    if facts.up_s < facts.after_s:
        detail = f"{facts.home} has been up for {facts.up_s:.0f} s of {facts.after_s}"
        left_s = facts.after_s - facts.up_s
        return Standing(code="HOME_NOT_STABLE", detail=detail, tries_in_s=left_s)
    return None


def _hands(facts: FailbackFacts) -> Standing | None:
    if facts.home_busy is not None:
        detail = f"{facts.home_busy} is under way or planned on {facts.home}"
        return Standing(code="HOME_BUSY", detail=detail)
    if facts.host_state != HostState.UP:
        return Standing(code="HOST_NOT_UP", detail=f"{facts.host} is {facts.host_state}")
    if facts.vm_busy is not None:
        return Standing(code="VM_BUSY", detail=f"{facts.vm_busy} works on {facts.vm}")
    return None


def _limits(facts: FailbackFacts) -> Standing | None:
    if facts.no_room is not None:
        return Standing(code="NO_ROOM", detail=facts.no_room)
    if facts.soft:
        names = ", ".join(facts.soft)
        detail = f"{len(facts.soft)} soft rules kept on {facts.host} would be broken: {names}"
        return Standing(code="SOFT_RULES", detail=detail)
    if facts.going is not None:
        detail = f"{facts.going} goes home to {facts.home} first: one VM at a time"
        return Standing(code="TAKES_TURNS", detail=detail)
    for host, count in ((facts.host, facts.leaving), (facts.home, facts.coming)):
        if count >= facts.per_host:
            detail = f"{host} has {count} migrations under way, {facts.per_host} are the limit"
            return Standing(code="MIGRATIONS_MAX", detail=detail)
    return None

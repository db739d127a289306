"""A scenario as this engine can have it: a stage's setup, affinity groups, and what is left over.

Hosts       All are in service before the scenario begins, and then have the power that it gives
            them: a cold start finds an engine that knows its hosts.
VMs         Protected unless the scenario calls them `ignored`. None runs, but for those whose host
            the peer was fencing: they ran there until the scenario began.
Memory      As overcommitted as a cluster may be: the peer starts a VM without asking for room.
Rules       Host rules become groups of VMs and hosts; each level of priority but the lowest adds a
            soft group of the hosts down to it, so that a better host breaks fewer.
Left over   Whatever has no counterpart is named in `unsupported`, as `kind: why`.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from domain.capacity import MEMORY_OVERCOMMIT_MOST
from domain.profiles import Profile
from simulator.scenarios.format import Rule, Scenario, VmSaid, unknown_fields
from simulator.setup import HostSetup, Setup, VmSetup

MIB = 1024 * 1024
HOST_MIB = 64 * 1024
HOST_CPUS = 64
VM_MIB = 1024
"""Where the scenario gives no sizes: room is never what decides."""

SMALLEST_VM_MIB = 16
RUNNING = frozenset({"started", "enabled"})
AT_REST = frozenset({"stopped", "disabled", "ignored"})
UNPROTECTED = "ignored"


@dataclass(frozen=True)
class Group:
    """An affinity group to be made; members by their names in the scenario."""

    name: str
    together: bool
    hard: bool
    vms: tuple[str, ...]
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """What is to be built for a scenario, and what of it cannot be."""

    setup: Setup
    hosts: dict[str, str]  # name in the scenario → here
    vms: dict[str, str]
    groups: tuple[Group, ...]
    refused_starts: dict[str, int]
    unending: tuple[str, ...]
    ran_before: tuple[str, ...]
    never_started: tuple[str, ...]
    unsupported: tuple[str, ...] = field(default=())


class Names:
    """Names that the engine accepts, each once."""

    def __init__(self) -> None:
        self._taken: dict[str, None] = {}

    def of(self, name: str) -> str:
        """A name like the given one."""
        plain = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:56] or "unnamed"
        found, number = plain, 1
        while found in self._taken:
            number += 1
            found = f"{plain}-{number}"
        self._taken[found] = None
        return found

    def all(self, names: Iterable[str]) -> dict[str, str]:
        """One for each, in order."""
        return {name: self.of(name) for name in names}


def scene_of(scenario: Scenario) -> Scene:
    """Plan what to build."""
    hosts, vms = Names().all(scenario.hosts), Names().all(scenario.vms)
    groups, left = groups_of(scenario)
    unsupported = (*unknown_fields(scenario), *_left_over(scenario), *left)
    prior = scenario.prior_state.service_status
    ran_before = tuple(
        name
        for name, vm in scenario.vms.items()
        if vm.wanted in RUNNING and name in prior and prior[name].state == "fence"
    )
    return Scene(
        setup=_setup(scenario, hosts, vms, ran_before),
        hosts=hosts,
        vms=vms,
        groups=groups,
        refused_starts={
            name: count for name, vm in scenario.vms.items() if (count := refused_starts(vm))
        },
        ran_before=ran_before,
        unending=tuple(name for name, vm in scenario.vms.items() if never_ends(vm)),
        never_started=tuple(
            vm for vm in scenario.vms if vm in prior and prior[vm].state == "error"
        ),
        unsupported=tuple(dict.fromkeys(unsupported)),
    )


def memory_mib(maxmem: float | None, default_mib: int) -> int:
    """Bytes as whole MiB."""
    return default_mib if maxmem is None else max(SMALLEST_VM_MIB, int(maxmem) // MIB)


def vm_setup(name: str, vm: VmSaid, host: str | None = None) -> VmSetup:
    """A VM as it is created; started on `host` or not at all."""
    size = vm.size
    return VmSetup(
        name=name,
        host=host,
        memory_mib=memory_mib(size.maxmem if size else None, VM_MIB),
        vcpus=max(1, math.ceil((size.maxcpu if size else None) or 1)),
        protected=vm.wanted != UNPROTECTED,
        max_restart=vm.max_restart,
        max_relocate=vm.max_relocate,
    )


def refused_starts(vm: VmSaid) -> int:
    """How often its start is refused before it succeeds."""
    digits = vm.fault_digits
    return int(digits[1]) if len(digits) > 1 and digits[1].isdigit() else 0


def never_ends(vm: VmSaid) -> bool:
    """Whether it cannot be stopped, by whatever means."""
    return vm.fault_digits[3:4] not in ("", "0")


def _setup(
    scenario: Scenario, hosts: dict[str, str], vms: dict[str, str], ran_before: tuple[str, ...]
) -> Setup:
    return Setup(
        hosts=tuple(
            HostSetup(
                name=hosts[name],
                memory_mib=memory_mib(host.maxmem, HOST_MIB),
                cpus=max(1, int(host.maxcpu or HOST_CPUS)),
                rack=f"rack-{hosts[name]}",
            )
            for name, host in scenario.hosts.items()
        ),
        vms=tuple(
            vm_setup(vms[name], vm, hosts.get(vm.host or "") if name in ran_before else None)
            for name, vm in scenario.vms.items()
        ),
        profile=Profile.FAST,
        memory_overcommit=MEMORY_OVERCOMMIT_MOST,
    )


def groups_of(scenario: Scenario) -> tuple[tuple[Group, ...], list[str]]:
    """Every rule as affinity groups, and those that cannot be."""
    names, groups, left = Names(), list[Group](), list[str]()
    for rule in scenario.rules:
        made = tuple(_groups_of(rule, names.of(rule.id), tuple(scenario.hosts)))
        groups.extend(made)
        if not made:
            left.append(f"rule {rule.kind}: {rule.id} has no counterpart as it is written")
    return tuple(groups), left


def _groups_of(rule: Rule, name: str, known: tuple[str, ...]) -> Iterator[Group]:
    if rule.kind == "resource-affinity" and rule.affinity in ("positive", "negative"):
        yield Group(name, rule.affinity == "positive", hard=True, vms=rule.resources)
    if rule.kind != "node-affinity":
        return
    nodes = {host: level for host, level in rule.nodes.items() if host in known}
    levels = sorted(set(nodes.values()), reverse=True)
    for number, lowest in enumerate(levels):
        last = lowest == levels[-1]
        hosts = tuple(host for host in known if nodes.get(host, lowest - 1) >= lowest)
        called = name if last else f"{name}-{number + 1}"
        yield Group(
            called, together=True, hard=rule.strict and last, vms=rule.resources, hosts=hosts
        )


def _left_over(scenario: Scenario) -> Iterator[str]:
    if scenario.groups:
        yield "groups: only rules are read"
    yield from _policy(scenario.policy)
    yield from _prior(scenario)
    ruled = {vm for rule in scenario.rules if rule.nodes for vm in rule.resources}
    for name, vm in scenario.vms.items():
        yield from _vm(vm, ruled=name in ruled)


def _vm(vm: VmSaid, *, ruled: bool) -> Iterator[str]:
    if vm.kind not in ("vm", "fa"):
        yield f"vm.kind={vm.kind}: there are only virtual machines; it runs as one"
    if vm.wanted not in RUNNING | AT_REST:
        yield f"vm.wanted={vm.wanted}: not known; it is left at rest"
    if vm.load is not None:
        yield "vm.load: measured load plays no part in placement"
    if vm.failback and ruled:
        yield "vm.failback: a VM stays where it runs when a better host is back"
    if any(digit != "0" for digit in (*vm.fault_digits[2:3], *vm.fault_digits[4:])):
        yield "vm.fault_digits: only refused starts and stops are played"


def _policy(policy: dict[str, Any], path: str = "policy") -> Iterator[str]:
    for name, value in policy.items():
        where = f"{path}.{name}"
        if isinstance(value, dict):
            yield from _policy(value, where)
        elif (where, value) not in KEPT_ANYWAY:
            yield f"{where}={value}: {_why_not(where)}"


KEPT_ANYWAY = {("policy.crs.ha", "basic"), ("policy.ha.shutdown_policy", "failover")}
"""Policies that ask for what the engine does without being told."""


def _why_not(where: str) -> str:
    if where == "policy.crs.ha":
        return "placement goes by rules and reserved memory, not by CPU or measured load"
    if "rebalance" in where:
        return "a VM that runs is not moved to balance hosts"
    return "there is no such setting"


def _prior(scenario: Scenario) -> Iterator[str]:
    prior = scenario.prior_state
    for host, status in prior.node_status.items():
        off = host in scenario.hosts and not scenario.hosts[host].power
        if status != "online" and not (status == "fence" and off):
            yield f"prior_state.node_status={status}: the host begins without it"
    for service in prior.service_status.values():
        if service.state == "error":
            yield "prior_state.service_status=error: VMs have no such state; it is not started"
        elif service.state not in ("started", "stopped", "fence"):
            yield f"prior_state.service_status={service.state}: the VM begins at rest where it lies"

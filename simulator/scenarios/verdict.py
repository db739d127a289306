"""Four levels of agreement, from what happened here and what the peer did.

L0  no invariant was violated
L1  the same VMs run in the end
L2  the same hosts were fenced, and no others
L3  every VM that runs in the end stands where the rules allow it
"""

from collections.abc import Mapping, Sequence

from simulator.scenarios.format import Rule, Scenario

LEVELS = ("L0", "L1", "L2", "L3")


def judge(
    scenario: Scenario,
    *,
    violations: Sequence[str],
    fenced: Sequence[str],
    final_running: Mapping[str, str],
) -> dict[str, str]:
    """For each level why it is not reached; empty when it is."""
    oracle = scenario.oracle
    peers = [fence.host for fence in oracle.hosts_fenced]
    return {
        "L0": "; ".join(violations),
        "L1": _differing(final_running, oracle.final_running, "runs", "does not run"),
        "L2": _differing(fenced, peers, "was fenced", "was not fenced"),
        "L3": "; ".join(broken_rules(scenario.rules, final_running)),
    }


def broken_rules(rules: Sequence[Rule], running: Mapping[str, str]) -> list[str]:
    """Each hard rule that does not hold, with why; a host rule is hard where it says `strict`."""
    return [why for rule in rules if (why := _broken(rule, running))]


def _broken(rule: Rule, running: Mapping[str, str]) -> str:
    where = {vm: running[vm] for vm in rule.resources if vm in running}
    if rule.kind == "node-affinity" and rule.strict:
        astray = [f"{vm} on {host}" for vm, host in where.items() if host not in rule.nodes]
        return f"{rule.id}: {', '.join(astray)}" if astray else ""
    if rule.kind != "resource-affinity" or len(where) < 2:
        return ""
    hosts = set(where.values())
    kept = len(hosts) == 1 if rule.affinity == "positive" else len(hosts) == len(where)
    listed = ", ".join(f"{vm} on {host}" for vm, host in where.items())
    return "" if kept else f"{rule.id}: {listed}"


def _differing(
    here: Sequence[str] | Mapping[str, str],
    there: Sequence[str] | Mapping[str, str],
    more: str,
    less: str,
) -> str:
    ours, peers = dict.fromkeys(here), dict.fromkeys(there)
    found = [f"{name} {more} here only" for name in ours if name not in peers]
    found += [f"{name} {less} here" for name in peers if name not in ours]
    return "; ".join(found)

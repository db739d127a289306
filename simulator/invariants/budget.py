"""I5 and I8 as the world sees them: which power commands were given, when, and whether armed.

What a claim was allowed to is judged when it is made, by a second, simpler way to say it: the
claims of the other hosts of its cluster, rack and site within the window, in virtual time. A
monitor watches at most as long as that, so what it counts as passed has passed.
"""

from collections.abc import Iterator
from typing import Any

from domain.disarming import DisarmMode
from simulator.invariants.facts import OPEN, Row
from simulator.stage import Stage

AGENT_S = 30.0
"""How long after the switch was thrown a command may still come that was claimed before."""

SCOPES = {"cluster": ("cluster_id",), "rack": ("site", "rack"), "site": ("site",)}

Found = tuple[str, str]


class Power:
    """Counts the hosts that were switched off while they ran."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._cut: list[tuple[float, str]] = []
        self._claims: list[tuple[float, str]] = []
        self._exceeded: dict[str, str] = {}  # by host: what its latest claim exceeds
        self.disarmed_s: float | None = None
        self.mode: DisarmMode | None = None
        self._own: dict[str, None] = {}
        self.read_switch()

    @property
    def fences(self) -> int:
        """How often a running host was told to go off."""
        return len(self._cut)

    def read_switch(self) -> None:
        """See whether automatic action is allowed, and which hosts the engine itself runs on."""
        off = [row for row in self._stage.rows.table("cluster") if not row["armed"]]
        self.mode = DisarmMode(off[0]["disarm_mode"]) if off else None
        if self.mode in (None, DisarmMode.IGNORE):
            self.disarmed_s = None
        elif self.disarmed_s is None:
            self.disarmed_s = self._stage.loop.time()
        hosts = self._stage.rows.table("host")
        self._own = {row["name"]: None for row in hosts if row["own_host"]}

    def happened(self, at_s: float, kind: str, facts: dict[str, Any]) -> list[Found]:
        """Take up one event; what it breaks."""
        if kind == "fence.claimed":
            self._claimed(at_s, facts["subject"])
        if kind != "bmc.command" or facts["action"] != "off":
            return []
        host: str = facts["host"]
        if not self._stage.centre.hosts[host].powered:
            return []
        if self._rehearses(host):
            return [found for found in self._not_armed(at_s, host) if found[0] == "own_host"]
        if self._by_plan(host):
            return [*self._not_own(host), *self._not_empty(host)]
        if host not in {name for _, name in self._claims}:
            self._claimed(at_s, host)
        self._cut.append((at_s, host))
        exceeded = self._exceeded.get(host)
        return [*([("fence_budget", exceeded)] if exceeded else []), *self._not_armed(at_s, host)]

    def _rehearses(self, name: str) -> bool:
        """Whether a person has just this done to a host in maintenance: no fence, and no budget."""
        mine = self._stage.rows.find("host", name)
        if mine["state"] != "maintenance":
            return False
        return any(
            row["kind"] == "host.rehearse_fencing" and row["target_id"] == mine["id"]
            for row in self._stage.rows.table("operation")
            if row["state"] in OPEN
        )

    def _claimed(self, at_s: float, name: str) -> None:
        self._exceeded.pop(name, None)
        hosts = {row["name"]: row for row in self._stage.rows.table("host")}
        if not self._approved(hosts[name]):
            over = next(self._over(at_s, hosts[name], hosts), None)
            if over is not None:
                self._exceeded[name] = over
        self._claims.append((at_s, name))

    def _over(self, at_s: float, mine: Row, hosts: dict[str, Row]) -> Iterator[str]:
        clusters = {row["id"]: row for row in self._stage.rows.table("cluster")}
        cluster = clusters[mine["cluster_id"]]
        since_s = at_s - cluster["fence_window_s"]
        lately = dict.fromkeys(name for claimed_s, name in self._claims if claimed_s > since_s)
        for scope, fields in SCOPES.items():
            if scope != "cluster" and not mine[scope]:
                continue
            near = [row for row in hosts.values() if all(row[f] == mine[f] for f in fields)]
            others = [row["name"] for row in near if row["name"] in lately and row is not mine]
            limit = _limit(cluster, scope, near)
            if limit is not None and len(others) >= limit:
                yield (
                    f"{mine['name']} was switched off though {', '.join(others)} of its {scope} "
                    f"had been within {cluster['fence_window_s']} s, and {limit} may be"
                )

    def _approved(self, mine: Row) -> bool:
        """Whether a person approves of the fence; that it has not expired is the store's word."""
        mine_open = {
            row["id"]
            for row in self._stage.rows.table("incident")
            if row["host_id"] == mine["id"] and row["open"]
        }
        given = self._stage.rows.table("approval")
        return any(r["incident_id"] in mine_open and r["withdrawn_at"] is None for r in given)

    def _by_plan(self, name: str) -> bool:
        """Whether a person's shutdown or reboot switches it, which is no fence."""
        rows = self._stage.rows.table("host", "name = ?", name)
        return any(row["state"] == "maintenance" and row["power"] is not None for row in rows)

    def _not_empty(self, name: str) -> list[Found]:
        ours = {row["id"] for row in self._stage.rows.table("vm")}
        domains = self._stage.centre.hosts[name].domains.items()
        there = [d.name for vm_id, d in domains if vm_id in ours and d.alive and not d.by_hand]
        why = f"{name} was switched off by plan though {', '.join(there)} ran there"
        return [("planned_off", why)] if there else []

    def _not_own(self, host: str) -> list[Found]:
        why = f"the engine switched off {host}, on which it runs"
        return [("own_host", why)] if host in self._own else []

    def _not_armed(self, at_s: float, host: str) -> list[Found]:
        found = self._not_own(host)
        if self.disarmed_s is not None and at_s > self.disarmed_s + AGENT_S:
            why = f"{host} was switched off {at_s - self.disarmed_s:.0f} s after disarming"
            found.append(("disarmed", why))
        return found


def _limit(cluster: Row, scope: str, near: list[Row]) -> int | None:
    prefix = "" if scope == "cluster" else f"{scope}_"
    counted = sum(row["removed_at"] is None and row["state"] != "maintenance" for row in near)
    most, percent = cluster[f"{prefix}fences_max"], cluster[f"{prefix}fences_percent"]
    share = None if percent is None else max(1, counted * percent // 100)
    return min((limit for limit in (most, share) if limit is not None), default=None)

"""I5 and I8 as the world sees them: which power commands were given, when, and whether armed."""

from typing import Any

from domain.profiles import policy_for
from simulator.stage import Stage

AGENT_S = 30.0
"""How long after the switch was thrown a command may still come that was claimed before."""

Found = tuple[str, str]


class Power:
    """Counts the hosts that were switched off while they ran."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._policy = policy_for(stage.setup.profile)
        self._cut: list[tuple[float, str]] = []
        self.disarmed_s: float | None = None
        self._own: dict[str, None] = {}
        self.read_switch()

    @property
    def fences(self) -> int:
        """How often a running host was told to go off."""
        return len(self._cut)

    def read_switch(self) -> None:
        """See whether automatic action is allowed, and which hosts the engine itself runs on."""
        armed = all(row["armed"] for row in self._stage.rows.table("cluster"))
        if armed:
            self.disarmed_s = None
        elif self.disarmed_s is None:
            self.disarmed_s = self._stage.loop.time()
        hosts = self._stage.rows.table("host")
        self._own = {row["name"]: None for row in hosts if row["own_host"]}

    def happened(self, at_s: float, kind: str, facts: dict[str, Any]) -> list[Found]:
        """Take up one event; what it breaks."""
        if kind != "bmc.command" or facts["action"] != "off":
            return []
        host: str = facts["host"]
        if not self._stage.centre.hosts[host].powered:
            return []
        self._cut.append((at_s, host))
        return [*self._budget(at_s), *self._not_armed(at_s, host)]

    def _budget(self, at_s: float) -> list[Found]:
        since_s = at_s - self._policy.window_s
        hosts = dict.fromkeys(host for cut_s, host in self._cut if cut_s > since_s)
        if len(hosts) <= self._policy.fences_per_window:
            return []
        sentence = f"{', '.join(hosts)} were switched off within {self._policy.window_s:.0f} s"
        return [("fence_budget", sentence)]

    def _not_armed(self, at_s: float, host: str) -> list[Found]:
        found = []
        if host in self._own:
            found.append(("own_host", f"the engine switched off {host}, on which it runs"))
        if self.disarmed_s is not None and at_s > self.disarmed_s + AGENT_S:
            why = f"{host} was switched off {at_s - self.disarmed_s:.0f} s after disarming"
            found.append(("disarmed", why))
        return found

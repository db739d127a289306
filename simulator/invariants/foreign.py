"""I8: guests that the engine did not make are never touched."""

from typing import Any
from uuid import UUID

from simulator.world.centre import DataCentre

BY_THE_ENGINE = ("destroyed", "shut down")


class Foreign:
    """Knows guests without our mark, which may come at any time."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre
        self._known: dict[UUID, str] = {}

    def happened(self, kind: str, facts: dict[str, Any]) -> list[tuple[str, str]]:
        """Take up one event; what it breaks."""
        if kind == "guest.started" and facts["generation"] is None:
            self._known[facts["vm_id"]] = facts["vm"]
            return []
        if facts.get("vm_id") not in self._known:
            return []
        if kind == "guest.ended" and facts["why"] in BY_THE_ENGINE:
            return [("foreign", f"{facts['vm']} on {facts['host']} was {facts['why']}")]
        if kind in ("guest.defined", "guest.adopted"):
            return [("foreign", f"{facts['vm']} on {facts['host']} was marked as ours")]
        if kind == "guest.undefined" and not facts["by_hand"]:
            return [("foreign", f"{facts['vm']} on {facts['host']} was undefined")]
        return []

"""Services in guests: a guest that runs takes connections at its own name, at every port."""

from domain.readings import DomainState
from simulator.world.centre import DataCentre


class VirtualDoors:
    """Implements `Doors`."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre

    async def open(self, host: str, port: int, within_s: float) -> bool:
        """Whether a guest of that name runs somewhere and is up by now."""
        await self._centre.ahead_of("door")
        return any(
            domain.name == host and domain.state is DomainState.RUNNING
            for machine in self._centre.hosts.values()
            for vm_id, domain in machine.domains.items()
            if vm_id not in self._centre.not_ready
        )

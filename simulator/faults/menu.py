"""Every kind of fault there is: what it does and how it heals."""

from simulator.faults.caretaker import CARETAKER
from simulator.faults.guests import GUESTS
from simulator.faults.hosts import HOSTS
from simulator.faults.links import LINKS
from simulator.faults.machines import MACHINES
from simulator.faults.people import PEOPLE
from simulator.faults.processes import PROCESSES
from simulator.faults.rehearsals import REHEARSALS
from simulator.faults.troubles import Kind

MENU: dict[str, Kind] = {
    **HOSTS,
    **GUESTS,
    **LINKS,
    **PROCESSES,
    **MACHINES,
    **PEOPLE,
    **REHEARSALS,
    **CARETAKER,
}


def is_outside(kind: str) -> bool:
    """Whether a fault of this kind lies outside of the promised fault model."""
    return MENU[kind].outside

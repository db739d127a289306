"""A person takes a host out of service and rehearses its fence devices there."""

import asyncio

from engine.actions.maintain_host import MaintainHost
from engine.actions.rehearsals import RehearseFencing
from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles

LOOK_S = 2.0
"""How often the person looks whether the host is empty."""


def rehearse(troubles: Troubles, fault: Fault) -> None:
    """Empty the host, then have its power cut and brought back."""
    troubles.people(_rehearse(troubles, fault.subject))


async def _rehearse(troubles: Troubles, name: str) -> None:
    host = troubles.stage.rows.find("host", name)
    await troubles.answer_to(MaintainHost(host_id=host["id"]))
    while troubles.stage.rows.find("host", name)["state"] == "preparing_maintenance":
        await asyncio.sleep(LOOK_S)
        if troubles.over:
            return
    await troubles.answer_to(RehearseFencing(host_id=host["id"]))


REHEARSALS: dict[str, Kind] = {
    "person.rehearse": Kind("a person empties a host and rehearses its fence devices", rehearse),
}

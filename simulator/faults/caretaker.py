"""A person who looks after the hosts: what is out of service and should not be is activated."""

import asyncio

from engine.actions.clusters import ArmCluster
from engine.actions.hosts import ActivateHost
from engine.actions.vms import StartVm
from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.rows import OPEN
from simulator.settling import GIVEN_FREE

LOOK_S = 2.0
"""How often the person looks. Higher: hosts are away for longer, and fewer recoveries fit in."""

STILL_OPEN = f"state IN ({', '.join('?' * len(OPEN))})"

AWAY = ("down", "non_operational", "error", "maintenance")
"""States that a person ends; a host that is merely silent is the engine's to judge."""


def looks_after(troubles: Troubles, _fault: Fault) -> None:
    """Begin to; it ends with the faults."""
    troubles.people(_looking(troubles))


async def _looking(troubles: Troubles) -> None:
    while not troubles.over:
        await _look(troubles)
        await asyncio.sleep(LOOK_S)


async def _look(troubles: Troubles) -> None:
    rows, centre = troubles.stage.rows, troubles.stage.centre
    busy = {
        op["target_id"]
        for op in rows.table("operation", STILL_OPEN, *OPEN)
        if op["kind"] not in GIVEN_FREE
    }
    for cluster in rows.table("cluster"):
        if not cluster["armed"] and cluster["id"] not in busy:
            await troubles.answer_to(ArmCluster(cluster_id=cluster["id"], armed=True))
    for host in rows.table("host"):
        if host["state"] in AWAY and host["id"] not in busy and centre.hosts[host["name"]].up:
            await troubles.answer_to(ActivateHost(host_id=host["id"]))
    placed = {run["vm_id"] for run in rows.table("vm_run", "active = 1")}
    for vm in rows.table("vm", "wanted = 1 AND removed_at IS NULL"):
        if vm["id"] not in placed and vm["id"] not in busy:
            await troubles.answer_to(StartVm(vm_id=vm["id"]))


CARETAKER: dict[str, Kind] = {
    "person.looks_after": Kind("a person brings hosts and VMs back that are down", looks_after),
}

"""Each operation of the format as a fault of the world or as what a person asks the engine for.

Host power    a host that gets power has its link again, too, and boots empty
Host network  the management network; the host and its VMs run on, and its power controller answers
Shutdown      the host's own system ends the guests and switches off: the engine is not asked
Maintenance   a person drains the host, and brings it back or gives the drain up
VMs           what is wanted of a VM is asked for by a person: start, stop, or stop and start again

What has no counterpart is named, and the rest of the scenario goes on.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from engine.actions.clusters import ArmCluster
from engine.actions.vm_config import CreateVm, EditVm
from simulator.scenarios.format import Op, VmSaid
from simulator.scenarios.play import Play
from simulator.scenarios.world import AT_REST, RUNNING, UNPROTECTED, Names, vm_setup
from simulator.world.network import Net

SHUTDOWN_S = 10.0
"""From the end of a host's guests until it has switched itself off."""

REBOOT_S = 60.0
"""From there until it is back, when it was to reboot."""


@dataclass(frozen=True)
class Deed:
    """What an operation does, the fields that it reads, and those that name a host or a VM."""

    do: Callable[[Play, Op], None]
    reads: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    vms: tuple[str, ...] = ()


def carry_out(play: Play, op: Op) -> None:
    """Do what an operation says, or name what cannot be done of it."""
    deed = OPERATIONS.get(op.op)
    if deed is None:
        play.lacks(f"op {op.op}: not known")
        return
    given = op.given
    for name in sorted(given.keys() - {*deed.reads, *deed.hosts, *deed.vms}):
        play.lacks(f"op {op.op}.{name}: not known")
    wrong = [name for name in deed.hosts if given.get(name) not in play.scenario.hosts]
    wrong += [name for name in deed.vms if given.get(name) not in play.vms]
    if wrong:
        play.lacks(f"op {op.op}: names nothing that is there ({', '.join(wrong)})")
        return
    deed.do(play, op)


def _power(play: Play, op: Op) -> None:
    name = op.given["host"]
    host = play.stage.centre.hosts[play.scene.hosts[name]]
    if op.given.get("on", True):
        host.get_power()
        play.stage.centre.networks[Net.MANAGEMENT].rejoin(host.name)
    else:
        _fault(play, name)
        host.lose_power()


def _network(play: Play, op: Op) -> None:
    name = op.given["host"]
    network = play.stage.centre.networks[Net.MANAGEMENT]
    if op.given.get("on", True):
        network.rejoin(play.scene.hosts[name])
    else:
        _fault(play, name)
        network.isolate(play.scene.hosts[name])


def _shutdown(play: Play, op: Op) -> None:
    play.later(_go_down(play, op.given["host"], back=False))


def _reboot(play: Play, op: Op) -> None:
    play.later(_go_down(play, op.given["host"], back=True))


async def _go_down(play: Play, name: str, *, back: bool) -> None:
    host = play.stage.centre.hosts[play.scene.hosts[name]]
    boot = host.boot
    if not host.powered:
        return
    _fault(play, name)
    for vm_id in tuple(host.domains):
        host.end(vm_id, "the host shuts down")
    await asyncio.sleep(SHUTDOWN_S)
    if host.powered and host.boot == boot:
        host.switch_off(by="itself")
    if back:
        await asyncio.sleep(REBOOT_S)
        host.get_power()


def _fault(play: Play, host: str) -> None:
    if play.well(host):
        play.faults.append((play.now_s, host))


def _wanted(play: Play, op: Op) -> None:
    vm, wanted = op.given["vm"], op.given.get("wanted", "started")
    if wanted not in RUNNING | AT_REST:
        play.lacks(f"op {op.op}: wanted={wanted} is not known")
        return
    play.later(_bring(play, vm, wanted))


async def _bring(play: Play, vm: str, wanted: str) -> None:
    row = play.stage.rows.find("vm", play.vms[vm])
    if row["protected"] is not (wanted != UNPROTECTED):
        await play.protect(vm, protected=wanted != UNPROTECTED)
    if wanted in RUNNING:
        await play.start(vm)
    elif wanted != UNPROTECTED:
        await play.stop(vm)


def _unmanage(play: Play, op: Op) -> None:
    play.later(play.protect(op.given["vm"], protected=False))


def _relocate(play: Play, op: Op) -> None:
    play.later(play.move(op.given["vm"], op.given["to"]))


def _migrate(play: Play, op: Op) -> None:
    play.later(play.migrate(op.given["vm"], op.given["to"]))


def _maintain(play: Play, op: Op) -> None:
    play.later(play.maintain(op.given["host"]))


def _serve_again(play: Play, op: Op) -> None:
    play.later(play.serve_again(op.given["host"]))


def _add(play: Play, op: Op) -> None:
    name = op.given.get("vm")
    if not isinstance(name, str) or name in play.vms:
        play.lacks(f"op {op.op}: needs the name of a new VM")
        return
    said = VmSaid.model_validate({key: op.given.get(key, default) for key, default in NEW.items()})
    names = Names()
    names.all(play.vms)
    play.vms[name] = names.of(name)
    play.places[name] = said.host
    play.later(_create(play, name, said, running=bool(op.given.get("running", False))))


NEW = {"host": None, "wanted": "stopped", "kind": "vm"}


async def _create(play: Play, vm: str, said: VmSaid, *, running: bool) -> None:
    (cluster,) = play.stage.rows.table("cluster")
    setup = vm_setup(play.vms[vm], said)
    groups = [group.name for group in play.scene.groups if vm in group.vms]
    await play.ask(
        CreateVm(
            cluster_id=cluster["id"],
            name=setup.name,
            memory_mib=setup.memory_mib,
            vcpus=setup.vcpus,
            protected=setup.protected,
            max_restart=setup.max_restart,
            max_relocate=setup.max_relocate,
            affinity_group_ids=tuple(
                play.stage.rows.find("affinity_group", group)["id"] for group in groups
            ),
        )
    )
    if said.wanted in RUNNING or running:
        await play.start(vm)


def _load(play: Play, op: Op) -> None:
    given = op.given.get("args", [])
    pairs = dict(zip(given[::2], given[1::2], strict=False))
    sizes = {key: float(pairs.pop(key)) for key in ("maxcpu", "maxmem") if key in pairs}
    if pairs or not op.given.get("static", False):
        play.lacks(f"op {op.op}: measured load plays no part in placement")
    if sizes and op.given.get("static", False):
        play.later(_resize(play, op.given["vm"], sizes))


async def _resize(play: Play, vm: str, sizes: dict[str, float]) -> None:
    changes: dict[str, int] = {}
    if "maxcpu" in sizes:
        changes["vcpus"] = max(1, math.ceil(sizes["maxcpu"]))
    if "maxmem" in sizes:
        changes["memory_mib"] = int(sizes["maxmem"])
    await play.ask(EditVm.model_validate({"vm_id": play.vm_id(vm), **changes}))


def _disarm(play: Play, _op: Op) -> None:
    play.later(_switch(play, armed=False))


def _arm(play: Play, _op: Op) -> None:
    play.later(_switch(play, armed=True))


async def _switch(play: Play, *, armed: bool) -> None:
    (cluster,) = play.stage.rows.table("cluster")
    await play.ask(ArmCluster(cluster_id=cluster["id"], armed=armed))


def _wait(_play: Play, _op: Op) -> None:
    """The times of the others say it already."""


OPERATIONS: dict[str, Deed] = {
    "wait": Deed(_wait, ("seconds",)),
    "host_power": Deed(_power, ("on",), hosts=("host",)),
    "host_network": Deed(_network, ("on",), hosts=("host",)),
    "host_planned_shutdown": Deed(_shutdown, hosts=("host",)),
    "host_planned_reboot": Deed(_reboot, hosts=("host",)),
    "vm_set_wanted": Deed(_wanted, ("wanted",), vms=("vm",)),
    "vm_unmanage": Deed(_unmanage, vms=("vm",)),
    "vm_relocate": Deed(_relocate, hosts=("to",), vms=("vm",)),
    "vm_migrate": Deed(_migrate, hosts=("to",), vms=("vm",)),
    "host_maintenance_on": Deed(_maintain, hosts=("host",)),
    "host_maintenance_off": Deed(_serve_again, hosts=("host",)),
    "vm_add": Deed(_add, ("vm", "host", "wanted", "kind", "running")),
    "vm_load": Deed(_load, ("static", "args"), vms=("vm",)),
    # The peer's command goes to one of its hosts; here the whole cluster has one switch.
    "automation_disarm": Deed(_disarm, ("host", "mode")),
    "automation_arm": Deed(_arm, ("host",)),
}

NOTHING_HAPPENS = frozenset({"wait"})
"""Operations after which nothing has to be looked at."""

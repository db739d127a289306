"""What watching 100 hosts costs, and how punctual the rounds are.

The monitor runs in a process of its own (this file as a script), as in production: the real
monitor, driver and store, with a SQLite file. It prints what it used, and the parent adds what the
hosts' daemons used meanwhile.
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, not_measured, spread
from benchmarks.fleet import guest_id, running_fleet, why_not
from benchmarks.inventory import Inventory
from benchmarks.quiet_host import SilentPower
from drivers.libvirt_hypervisor import LibvirtHypervisor
from engine.actions.hosts import ActivateHostAction, RecoverHostAction
from engine.backend import Backend
from engine.records.watching import WatchRecords
from store import observations
from store.database import Database
from worker.child import bound_to_parent
from worker.exit import exit_process
from worker.memory import settle
from worker.monitor import Monitor

HOSTS = 100
GUESTS = 20
SECONDS = 60
WARM_S = 7.0
"""Opening 100 connections is not what a monitor does all day."""

CPU_MAX = 5.0
NAMES = ("monitor, 100 hosts", "their libvirtd processes", "lateness of rounds")


async def measure(var: Path) -> list[Figure]:
    """The three figures of watching, or why there are none."""
    if (reason := why_not()) is not None:
        return [not_measured(name, reason) for name in NAMES]
    print(f"watching: {HOSTS} libvirtd with {GUESTS} guests each start", flush=True)
    async with running_fleet(var / "fleet", HOSTS, GUESTS) as fleet:
        inventory = await Inventory.create(var / "watching.db", virt_type="test")
        named = [(f"h{number:03}", uri) for number, uri in enumerate(fleet.uris, start=1)]
        await inventory.add_hosts(named)
        await inventory.running_vms(lambda uri: [guest_id(uri, n) for n in range(GUESTS)])
        print(f"watching: {SECONDS} s of polls every 2 s", flush=True)
        daemons_before, began = fleet.cpu_s(), time.monotonic()
        seen = await _child(inventory.database.url)
        daemons = (fleet.cpu_s() - daemons_before) / (time.monotonic() - began) * 100
        await _check(inventory.database)
        await inventory.database.close()
    return _figures(seen, daemons)


def _figures(seen: dict[str, Any], daemons: float) -> list[Figure]:
    monitor = seen["cpu_s"] / seen["wall_s"] * 100
    late = spread(seen["late_s"])
    jitter = f"p50 {late['p50']:.1f} ms, p99 {late['p99']:.1f} ms, max {late['max']:.1f} ms"
    share = {"percent_of_core": round(monitor, 2), "wall_s": round(seen["wall_s"], 1)}
    share["rounds"] = float(len(seen["late_s"]))
    target = f"≤ {CPU_MAX:.0f} %"
    met = monitor <= CPU_MAX
    return [
        Figure(NAMES[0], f"{monitor:.1f} % of a core", target, met, share),
        Figure(NAMES[1], f"{daemons:.1f} % of a core", data={"percent_of_core": round(daemons, 2)}),
        Figure(NAMES[2], jitter, data=late),
    ]


async def _check(database: Database) -> None:
    """A cheap monitor that saw nothing would be no achievement."""
    rows = await database.read(observations.latest)
    up = sum(1 for row in rows if row["verdict"] == "up" and row["boot_mark"] == 1)
    if up != HOSTS:
        raise RuntimeError(f"only {up} of {HOSTS} hosts were seen as up")


async def _child(url: str) -> dict[str, Any]:
    command = bound_to_parent([sys.executable, "-m", "benchmarks.watching", url])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the monitor ended with code {process.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


async def _watch(url: str) -> dict[str, Any]:
    database = Database(url)
    backend = Backend(database, [RecoverHostAction(), ActivateHostAction()], [])
    hypervisor = LibvirtHypervisor()
    monitor = Monitor("bench", WatchRecords(database), backend, hypervisor, SilentPower())
    late_s: list[float] = []
    monitor.on_round = late_s.append
    settle()
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(WARM_S)
    late_s.clear()
    cpu_s, began = _own_cpu_s(), time.monotonic()
    _done, _pending = await asyncio.wait({task}, timeout=SECONDS)
    answer = {"cpu_s": _own_cpu_s() - cpu_s, "wall_s": time.monotonic() - began}
    if task.done():
        task.result()
    task.cancel()
    await asyncio.wait({task})
    await hypervisor.close()
    await database.close()
    return answer | {"late_s": late_s}


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_watch(sys.argv[1]))))
    exit_process(0)

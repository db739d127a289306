"""How fast simulations run: the real engine in virtual time, with every invariant checked.

A recovery is measured from the power cut of a host with VMs until its incident is closed and every
VM runs again, in CPU seconds of the one thread that plays it, monitors' and relay's polls of that
time included. Bringing the host back, so that the next one can be lost, is not measured.
"""

import asyncio
import time
from pathlib import Path

from benchmarks.figures import Figure, spread
from domain.operations import OPEN_STATES
from engine.actions.hosts import ActivateHost
from simulator.garbage import collected_at_rest
from simulator.invariants.watch import Watch
from simulator.quiet import quiet
from simulator.seeds import simulate
from simulator.setup import HostSetup, Setup, VmSetup
from simulator.stage import Stage, on_stage, set_stage
from simulator.tape import Recorder

WARM_S = 16.0
SMALL_RECOVERIES, LARGE_RECOVERIES = 30, 3
SEEDS = 60
OPEN = tuple(state.value for state in OPEN_STATES)

SMALL_TARGET, LARGE_TARGET = 20.0, 5.0
"""Recoveries of three hosts a CPU second, and of a hundred hosts a CPU minute."""


async def measure(_var: Path) -> list[Figure]:
    """All figures; a simulation has a loop of its own, and so a thread."""
    return await asyncio.to_thread(_measure)


def _measure() -> list[Figure]:
    print(f"simulator: {SMALL_RECOVERIES} recoveries of 3 hosts", flush=True)
    small = _recoveries(Setup.small(), SMALL_RECOVERIES)
    print(f"simulator: {SEEDS} seeds", flush=True)
    seeds = _seeds()
    print("simulator: 100 hosts and 2,000 VMs are brought into service", flush=True)
    large = _recoveries(_hundred_hosts(), LARGE_RECOVERIES)
    per_s, per_minute = len(small) / sum(small), 60 * len(large) / sum(large)
    return [
        Figure(
            "simulated recoveries a CPU second, 3 hosts, 4 VMs",
            f"{per_s:.1f}",
            f">= {SMALL_TARGET:.0f}",
            per_s >= SMALL_TARGET,
            spread(small),
        ),
        Figure(
            "simulated recoveries a CPU minute, 100 hosts, 2,000 VMs",
            f"{per_minute:.1f}",
            f">= {LARGE_TARGET:.0f}",
            per_minute >= LARGE_TARGET,
            spread(large),
        ),
        *seeds,
    ]


def _hundred_hosts() -> Setup:
    hosts = [f"h{number:03}" for number in range(1, 101)]
    return Setup(
        hosts=tuple(HostSetup(name=name, memory_mib=8192, cpus=32) for name in hosts),
        vms=tuple(VmSetup(name=f"vm{n:04}", host=hosts[n % len(hosts)]) for n in range(2000)),
    )


def _recoveries(setup: Setup, number: int) -> list[float]:
    """CPU seconds of each recovery."""
    with quiet([]), collected_at_rest():
        stage = set_stage(1, setup)
        watch = Watch(stage, Recorder(stage))
        with on_stage(stage) as run:
            took: list[float] = run(_played(stage, number))
            watch.finish()
    if watch.violations or stage.defects:
        raise RuntimeError(f"the simulation is broken: {watch.violations} {stage.defects}")
    return took


async def _played(stage: Stage, number: int) -> list[float]:
    stage.engine.start()
    await asyncio.sleep(WARM_S)
    took = []
    for turn in range(number):
        name = stage.setup.hosts[turn % len(stage.setup.hosts)].name
        if not _copies(stage, name):
            continue
        began = time.process_time()
        vms = _copies(stage)
        stage.centre.hosts[name].lose_power()
        await stage.until(lambda before=vms: _recovered(stage, before), f"{name} stays down")  # type: ignore[misc]
        took.append(time.process_time() - began)
        stage.centre.hosts[name].get_power()
        await stage.done(ActivateHost(host_id=stage.rows.find("host", name)["id"]))
    return took


def _copies(stage: Stage, host: str | None = None) -> int:
    named = stage.centre.hosts.values() if host is None else [stage.centre.hosts[host]]
    return sum(domain.alive for each in named for domain in each.domains.values())


def _recovered(stage: Stage, vms: int) -> bool:
    if _copies(stage) < vms:
        return False
    marks = ", ".join("?" * len(OPEN))
    return not stage.rows.table("operation", f"state IN ({marks})", *OPEN)


def _seeds() -> list[Figure]:
    simulate(0)
    began, virtual_s, faults = time.process_time(), 0.0, 0
    for seed in range(1, 1 + SEEDS):
        report = simulate(seed)
        virtual_s += report.virtual_s
        faults += sum(report.injected.values())
    took_s = time.process_time() - began
    hours = virtual_s / 3600 / took_s
    data = {"seeds": float(SEEDS), "faults": float(faults), "cpu_s": round(took_s, 2)}
    return [
        Figure("virtual hours a CPU second, drawn seeds", f"{hours:.3f}", data=data),
        Figure("drawn seeds a CPU second", f"{SEEDS / took_s:.1f}"),
    ]

"""`python -m benchmarks latencies [--samples N] [--keep]`: how long each call takes in the lab.

The engine's own drivers against real libvirtd, QEMU, IPMI, Redfish and sshd in namespaces of this
machine; needs root and about ten minutes. Prints the table and writes it to
var/bench/latencies.json; with `--keep` also to simulator/latencies.json, against which the
simulator is held.
"""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from benchmarks.bench_lab import bench_lab, tell
from benchmarks.figures import percentile
from benchmarks.latency_rounds import LibvirtRounds, PowerRounds, SshRounds, Watch
from lab.lab import Lab
from simulator.latencies import FILE, Measured, Table

SAMPLES = 20
HOSTS = 2
HOW = {
    "poll": "the monitor's reading of a host, over its kept connection",
    "knock": "a TCP connection to libvirt's port, and its end",
    "open": "a fresh connection to libvirtd (qemu+tcp)",
    "define": "one VM with one disk, read back",
    "create": "of one guest of 96 MiB (TCG), nothing else being started",
    "destroy": "of a guest that boots, read back",
    "shutdown": "until libvirt has pressed the button",
    "guest_stop": "from the button until the guest reads as shut off (busybox, ACPI)",
    "move": "live, peer to peer, an idle guest of 96 MiB, as its caller waits for it",
    "abort_migration": "of one that is under way",
    "agent_ping": "QEMU's guest agent, which is up",
    "bmc_read": "the fence agent's `status`, its process and its login included",
    "bmc_off": "the fence agent's `off`, without power_wait, until it reads off",
    "bmc_on": "the fence agent's `on`, without power_wait, until it reads on",
    "host_boot": "from the order until libvirt answers; a host of the lab has no firmware",
    "ssh_restart": "of libvirtd over SSH, until the host's command has ended",
    "libvirtd_start": "from the same order until libvirt answers",
}
"""How each is measured; what is not named here is one call of a session."""

Round = Callable[[int], Awaitable[None]]


def main(arguments: list[str], var: Path) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks latencies")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="of each at least (default %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="also write the simulator's table")
    wanted = parser.parse_args(arguments)
    if wanted.samples < 1:
        parser.error("--samples must be 1 or more")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    watch = Watch()
    with bench_lab(var / "latencies", "latency", HOSTS) as lab:
        asyncio.run(_measure(lab, watch, wanted.samples))
    made = Table(at=at, cores=os.cpu_count() or 1, load=watch.load, rows=rows_of(watch))
    _show(made)
    for path in (var / "latencies.json", *([FILE] if wanted.keep else [])):
        path.write_text(made.model_dump_json(indent=1) + "\n")
        print(f"table: {path}")
    return 0


async def _measure(lab: Lab, watch: Watch, samples: int) -> None:
    async with LibvirtRounds(lab, watch) as libvirt:
        await _rounds(watch, "libvirt", samples, libvirt.round)
    for host in lab.inventory().hosts[:1]:
        await _rounds(watch, "SSH", samples, SshRounds(host, watch).round)
        await _rounds(watch, "IPMI", samples, PowerRounds(host, host.bmc, "ipmi", watch).round)
        await asyncio.to_thread(lab.redfish, host.name)
        await _rounds(
            watch, "Redfish", samples, PowerRounds(host, host.redfish, "redfish", watch).round
        )


async def _rounds(watch: Watch, what: str, samples: int, one: Round) -> None:
    for number in range(samples):
        await one(number)
        watch.note_load()
        if (number + 1) % 5 == 0 or number + 1 == samples:
            tell(f"{what}: {number + 1} of {samples}")


def rows_of(watch: Watch) -> tuple[Measured, ...]:
    """A row for each action and protocol, in their order."""
    return tuple(
        Measured(
            action=action,
            over=over,
            p50_s=_s(percentile(took, 0.5)),
            p95_s=_s(percentile(took, 0.95)),
            max_s=_s(max(took)),
            samples=len(took),
            how=HOW.get(action, "one call of an open session"),
        )
        for (action, over), took in sorted(watch.took_s.items())
    )


def _s(seconds: float) -> float:
    return max(round(seconds, 4), 0.0001)


def _show(made: Table) -> None:
    shown = Shown("action", "over", "p50 ms", "p95 ms", "max ms", "samples", "how")
    for row in made.rows:
        figures = (f"{1000 * s:.1f}" for s in (row.p50_s, row.p95_s, row.max_s))
        shown.add_row(row.action, row.over, *figures, str(row.samples), row.how)
    Console(width=150).print(shown)

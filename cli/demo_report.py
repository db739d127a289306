"""What the demo measured, as a table for people and as JSON for programs.

A figure that was not measured is null, never a guess: a phase that the incident did not reach, and
the recovery time of all protected VMs as soon as one of them did not come back.
"""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

PHASES = ("detect", "decide", "prove", "place", "start", "ready")


class Count(Protocol):
    """What something that knows nothing of the engine has counted."""

    @property
    def rate_hz(self) -> float | None:
        """How often it looked; None: it was told of each start."""
        ...

    @property
    def longest_gap_s(self) -> float:
        """How long it may have been blind."""
        ...

    def copies_max(self, vm: str) -> int:
        """The most copies of a VM at a time."""
        ...

    def hosts_of(self, vm: str) -> tuple[str, ...]:
        """Where a VM runs now."""
        ...


def make_report(
    incident: dict[str, Any], cut_at: datetime, vms: list[dict[str, Any]], samples: Count
) -> dict[str, Any]:
    """The report of one power cut; durations in seconds, `vms` as the API lists them."""
    moved = {vm["name"]: vm for vm in incident["vms"]}
    rows = [_vm(vm, moved.get(vm["name"]), cut_at, samples) for vm in vms]
    host = incident["host_name"]
    back = [row["recovery_s"] for row in rows if row["protected"] and row["host_before"] == host]
    return {
        "host": host,
        "epoch": incident["epoch"],
        "why": incident["why"],
        "certificate": incident["certificate"],
        "phases_s": phase_times(incident, cut_at),
        "all_protected_running_s": None if None in back else max(back, default=None),
        "vms": rows,
        "sampler": {"rate_hz": samples.rate_hz, "longest_gap_s": samples.longest_gap_s},
    }


def phase_times(incident: dict[str, Any], fault_at: datetime) -> dict[str, float | None]:
    """Seconds of each phase, counted from the fault itself; None: it was not reached."""
    began = {p: datetime.fromisoformat(at) for p, at in incident["phase_began"].items()}
    began["detect"] = fault_at
    return {
        phase: _seconds(began.get(phase), began.get(following))
        for phase, following in pairwise((*PHASES, "done"))
    }


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return round((end - start).total_seconds(), 3)


def _vm(
    vm: dict[str, Any], moved: dict[str, Any] | None, cut_at: datetime, samples: Count
) -> dict[str, Any]:
    back = moved["running_again_at"] if moved else None
    return {
        "name": vm["name"],
        "protected": vm["protected"],
        "copies_seen_max": samples.copies_max(vm["name"]),
        "copies_now": len(samples.hosts_of(vm["name"])),
        "host_before": moved["host_before"] if moved else vm["host_name"],
        # A run that was claimed and has not started is no VM on that host yet.
        "host_after": (moved["host_after"] if back else None) if moved else vm["host_name"],
        "recovery_s": _seconds(cut_at, datetime.fromisoformat(back)) if back else None,
    }


def failures(report: dict[str, Any]) -> list[str]:
    """Everything that did not go as it must; empty means that the demo succeeded."""
    wrong = []
    for vm in report["vms"]:
        hit = vm["host_before"] == report["host"]
        if vm["copies_seen_max"] > 1:
            wrong.append(f"{vm['name']} ran {vm['copies_seen_max']} times at once")
        if vm["protected"] and vm["copies_now"] != 1:
            wrong.append(f"{vm['name']} has {vm['copies_now']} copies instead of one")
        if vm["protected"] and hit and vm["host_after"] in (None, report["host"]):
            wrong.append(f"{vm['name']} does not run on another host")
    if not any(vm["protected"] and vm["host_before"] == report["host"] for vm in report["vms"]):
        wrong.append("no protected VM ran on the host that was cut")
    if not (report["certificate"] or {}).get("evidence"):
        wrong.append("there is no death certificate with its evidence")
    if missing := [phase for phase in PHASES if report["phases_s"][phase] is None]:
        wrong.append(f"the incident shows no time for {', '.join(missing)}")
    return wrong


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write it; an older report is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, default=str) + "\n")


def _shown(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s"


def show_report(report: dict[str, Any], console: Console) -> None:
    """Print it."""
    phases = Table(
        title=f"Incident: {report['host']} (epoch {report['epoch']})", title_style="bold"
    )
    for phase in PHASES:
        phases.add_column(phase, justify="right")
    phases.add_row(*(_shown(report["phases_s"][phase]) for phase in PHASES))
    console.print(phases)
    vms = Table(title="VMs", title_style="bold")
    for column in ("name", "protected", "before", "after", "back after", "copies at most"):
        vms.add_column(column, justify="right" if "after" in column else "left")
    for vm in report["vms"]:
        vms.add_row(
            vm["name"],
            "yes" if vm["protected"] else "no",
            vm["host_before"] or "–",
            vm["host_after"] or "down",
            _shown(vm["recovery_s"]),
            str(vm["copies_seen_max"]),
        )
    console.print(vms)
    total = report["all_protected_running_s"]
    if total is not None:
        console.print(f"power cut → every protected VM runs again: [bold]{total:.2f} s[/bold]")

"""What the demo measured, as a table for people and as JSON for programs."""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.sampler import Samples

PHASES = ("detect", "decide", "prove", "place", "start", "ready")


def make_report(
    incident: dict[str, Any], cut_at: datetime, vms: list[dict[str, Any]], samples: Samples
) -> dict[str, Any]:
    """The report of one power cut; durations in seconds, `vms` as the API lists them."""
    began = {p: datetime.fromisoformat(at) for p, at in incident["phase_began"].items()}
    began["detect"] = cut_at
    order = [*PHASES, "done"]
    phases = {
        phase: round((began[following] - began[phase]).total_seconds(), 3)
        for phase, following in pairwise(order)
    }
    moved = {vm["name"]: vm for vm in incident["vms"]}
    rows = [_vm(vm, moved.get(vm["name"]), cut_at, samples) for vm in vms]
    back = [row["recovery_s"] for row in rows if row["protected"] and row["recovery_s"] is not None]
    return {
        "host": incident["host_name"],
        "epoch": incident["epoch"],
        "why": incident["why"],
        "certificate": incident["certificate"],
        "phases_s": phases,
        "all_protected_running_s": max(back, default=None),
        "vms": rows,
        "sampler": {"rate_hz": samples.rate_hz, "longest_gap_s": samples.longest_gap_s},
    }


def _vm(
    vm: dict[str, Any], moved: dict[str, Any] | None, cut_at: datetime, samples: Samples
) -> dict[str, Any]:
    back = moved["running_again_at"] if moved else None
    recovery_s = (datetime.fromisoformat(back) - cut_at).total_seconds() if back else None
    return {
        "name": vm["name"],
        "protected": vm["protected"],
        "copies_seen_max": samples.copies_max(vm["name"]),
        "copies_now": len(samples.hosts_of(vm["name"])),
        "host_before": moved["host_before"] if moved else vm["host_name"],
        "host_after": moved["host_after"] if moved else vm["host_name"],
        "recovery_s": round(recovery_s, 3) if recovery_s is not None else None,
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
    return wrong


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write it; an older report is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, default=str) + "\n")


def show_report(report: dict[str, Any], console: Console) -> None:
    """Print it."""
    phases = Table(
        title=f"Incident: {report['host']} (epoch {report['epoch']})", title_style="bold"
    )
    for phase in PHASES:
        phases.add_column(phase, justify="right")
    phases.add_row(*(f"{report['phases_s'][phase]:.2f} s" for phase in PHASES))
    console.print(phases)
    vms = Table(title="VMs", title_style="bold")
    for column in ("name", "protected", "before", "after", "back after", "copies at most"):
        vms.add_column(column, justify="right" if "after" in column else "left")
    for vm in report["vms"]:
        back = f"{vm['recovery_s']:.2f} s" if vm["recovery_s"] is not None else "–"
        vms.add_row(
            vm["name"],
            "yes" if vm["protected"] else "no",
            vm["host_before"] or "–",
            vm["host_after"] or "down",
            back,
            str(vm["copies_seen_max"]),
        )
    console.print(vms)
    total = report["all_protected_running_s"]
    if total is not None:
        console.print(f"power cut → every protected VM runs again: [bold]{total:.2f} s[/bold]")

"""Tells what many incidents had in common: outcomes, times by phase, VMs in time, waits."""

from cli.failures import Json
from cli.render import clock, lasting, print_facts, print_line, print_table

MEANING = {
    "detect": "from the last answer to the report",
    "decide": "judge: is it dead, may its power be cut",
    "prove": "read the power as off",
    "place": "choose hosts, reserve memory",
    "start": "until the last VM runs",
    "ready": "until the last VM is ready",
    "total": "from the last answer to the end",
    "each VM": "from the last answer until it runs again",
}
RANKS = ("p50_s", "p90_s", "p99_s", "worst_s")


def tell_stats(found: Json) -> None:
    """Print it: what it is about, how it ended, how long it took, what it waited for."""
    _tell_summary(found)
    if not found["incidents"]:
        return
    print_line()
    _tell_times(found)
    print_line()
    _tell_waits(found["waited"])


def _tell_summary(found: Json) -> None:
    count = found["incidents"]
    since, until = clock(found["since"]), clock(found["until"])
    print_line(f"{count} closed incident{'s' * (count != 1)} from {since} to {until}")
    if found["cut_off"]:
        print_line(f"  only the newest {count}: there were more in the time you asked for")
    if not count:
        return
    ends = ", ".join(f"{number} {outcome}" for outcome, number in found["outcomes"].items())
    print_facts(
        (
            ("ended", ends),
            ("power cut", f"{found['fences']} time{'s' * (found['fences'] != 1)}"),
            ("VMs back", _back(found["budgets"])),
            ("in budget", _in_budget(found["budgets"])),
        ),
        indent="  ",
    )


def _back(vms: Json) -> str:
    if not vms["vms"]:
        return "none had to come back"
    late = f"; {vms['not_back']} did not come back through their incident" * (vms["not_back"] > 0)
    return f"{vms['back']} of {vms['vms']}{late}"


def _in_budget(vms: Json) -> str | None:
    bound = vms["within"] + vms["over"]
    if not vms["vms"]:
        return None
    if not bound:
        return "no VM had a budget (`holdfast vm edit NAME --budget 30s`)"
    rest = f"; {vms['without_budget']} had none" * (vms["without_budget"] > 0)
    return f"{vms['within']} of {bound}, {vms['over']} over{rest}"


def _tell_times(found: Json) -> None:
    spreads = found["phases"] | {"total": found["total"], "each VM": found["vms"]}
    rows = [
        (
            name,
            each["count"],
            *("-" if each[rank] is None else lasting(each[rank]) for rank in RANKS),
            MEANING[name],
        )
        for name, each in spreads.items()
    ]
    print_table(("PHASE", "N", "P50", "P90", "P99", "WORST", "WHAT"), rows)
    if found["few"]:
        print_line(
            f"Percentiles of n={found['total']['count']} mean little: "
            "the high ones are single incidents. Look at each: holdfast incident list"
        )


def _tell_waits(waited: list[Json]) -> None:
    if not waited:
        return print_line("Nothing was waited for")
    print_line("Waited for")
    rows = [(one["code"], one["incidents"], lasting(one["worst_s"])) for one in waited]
    return print_table(("REASON", "INCIDENTS", "LONGEST"), rows)

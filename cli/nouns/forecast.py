"""Tells what the loss of a host would mean: who comes back where and when, who waits for what."""

from cli.failures import Json
from cli.render import lasting, print_line, print_table


def tell_forecast(found: Json) -> None:
    """Print it, what would hold everything up first."""
    print_line(f"If {found['host_name']} died now (profile {found['profile']}):")
    for warning in _warnings(found):
        print_line(f"  {warning}")
    print_line()
    _tell_back(found)
    for vm in found["waits"]:
        print_line(f"{vm['name']} would wait: {vm['why']}")
    if found["stay_down"]:
        print_line(f"not protected, so they stay down: {', '.join(found['stay_down'])}")


def _warnings(found: Json) -> list[str]:
    warnings = []
    if not found["armed"]:
        warnings.append("nothing happens by itself: the cluster is disarmed")
    if found["blocks_on_power_loss"]:
        warnings.append(
            "after a loss of power nothing could prove it dead: everything waits for a person"
        )
    if found.get("isolation_needs_approval"):
        warnings.append(
            "after an isolation a person has to approve of the fence: so many silent hosts may be "
            "our own network"
        )
    if not found["hosts_left"]:
        warnings.append("no other host is up")
    return warnings


def _tell_back(found: Json) -> None:
    rows = [
        (
            vm["name"],
            vm["host"],
            _after(vm, "power_cut_s"),
            _after(vm, "isolation_s"),
            _budget(vm),
            ", ".join(vm["gave_way"]) or "-",
        )
        for vm in found["back"]
    ]
    header = ("VM", "BACK ON", "AFTER A POWER CUT", "AFTER AN ISOLATION", "BUDGET", "GIVES WAY")
    print_table(header, rows, empty="no protected VM would come back")


def _after(vm: Json, fault: str) -> str:
    told = lasting(vm[fault])
    return f"{told}, and once {', '.join(vm['after'])} is ready" if vm.get("after") else told


def _budget(vm: Json) -> str:
    if vm["budget_s"] is None:
        return "-"
    return f"{vm['budget_s']} s{'' if vm['within_budget'] else ', exceeded'}"

"""What holds once nothing is under way: the world and the rows agree, and everything has ended.

In between a start has claimed its run and not made its process yet, and a guest has died and no
poll has told of it, so none of this can be asked at every moment.
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from domain.inventory import OnHang, OnIoError, RunState
from domain.operations import StepState
from domain.readings import DomainState
from simulator.invariants.facts import OPEN, Check, Facts, Row
from simulator.world.centre import DataCentre


def one_copy_at_most(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I1, as the world itself counted it."""
    names = facts.by_id("vm")
    for vm_id, copies in centre.copies_max.items():
        if copies > 1:
            yield f"{names[vm_id]['name']} had {copies} copies at once"


def every_copy_has_its_run(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """No process that the engine does not know, except on hosts that are out of service."""
    hosts = {row["name"]: row for row in facts.rows["host"]}
    known = {(run["vm_id"], run["host_id"], run["generation"]) for run in facts.active}
    known |= {
        (run["vm_id"], run["target_host_id"], run["target_generation"])
        for run in facts.active
        if run["state"] == RunState.MIGRATING
    }
    for host in centre.hosts.values():
        row = hosts.get(host.name)
        if row is None or row["state"] not in ("up", "connecting"):
            continue
        for vm_id, domain in host.domains.items():
            ours = domain.generation is not None and domain.state is DomainState.RUNNING
            if ours and (vm_id, row["id"], domain.running) not in known:
                yield f"{domain.name} runs on {host.name} without a run"


def every_running_run_has_its_copy(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """What the engine calls running runs, on a host that is in service and answers."""
    hosts, names = facts.by_id("host"), facts.by_id("vm")
    for run in facts.active:
        host = hosts[run["host_id"]]
        real = centre.hosts[host["name"]]
        if run["state"] != RunState.RUNNING or host["state"] != "up" or not real.answers:
            continue
        domain = real.domains.get(run["vm_id"])
        if domain is None or domain.running != run["generation"]:
            yield f"{names[run['vm_id']]['name']} does not run on {host['name']}"


def nothing_stays_paused(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """What QEMU has paused goes on once its disks answer, where its host is in service."""
    hosts, vms = facts.by_id("host"), facts.by_id("vm")
    for run in facts.active:
        host, vm = hosts[run["host_id"]], vms[run["vm_id"]]
        domain = centre.hosts[host["name"]].domains.get(run["vm_id"])
        left = vm["on_io_error"] == OnIoError.LEAVE_PAUSED
        if host["state"] != "up" or domain is None or left:
            continue
        if run["state"] == RunState.RUNNING and domain.state is DomainState.PAUSED:
            yield f"{vm['name']} is still paused on {host['name']}"


def nothing_stays_hung(centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A protected guest that hangs is started again where its VM asks for it, its host in service.

    Where its agent was never heard in this run, nothing tells a hang from a guest without one.
    """
    hosts, vms = facts.by_id("host"), facts.by_id("vm")
    for run in facts.active:
        host, vm = hosts[run["host_id"]], vms[run["vm_id"]]
        domain = centre.hosts[host["name"]].domains.get(run["vm_id"])
        asked = vm["on_hang"] == OnHang.RESTART and vm["protected"] and run["agent_heard"]
        if host["state"] != "up" or domain is None or not asked:
            continue
        if run["state"] == RunState.RUNNING and domain.hung and domain.alive:
            yield f"{vm['name']} still hangs on {host['name']}"


def every_wanted_vm_is_accounted_for(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A VM that someone wants runs, is being started, was left down, or says why it is not up."""
    runs = {run["vm_id"] for run in facts.active}
    told = _last_of_each_vm(facts).keys()
    lost = {run["vm_id"] for run in facts.rows["vm_run"] if run["state"] == RunState.LOST}
    for vm in facts.rows["vm"]:
        accounted = vm["id"] in runs | told or (vm["id"] in lost and not vm["protected"])
        if vm["wanted"] and not accounted:
            yield f"{vm['name']} is wanted, down, and nothing says why"


START_OR_END = ("vm.start", "vm.stop", "vm.recover")
"""Kinds of operations after which a VM runs or does not."""


def _last_of_each_vm(facts: Facts) -> dict[UUID, Row]:
    """The newest operation that was to start or end each VM."""
    operations = sorted(facts.rows["operation"], key=lambda op: str(op["id"]))
    return {op["target_id"]: op for op in operations if op["kind"] in START_OR_END}


def no_protected_vm_is_forgotten(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A protected VM that is wanted and down is not one whose last start went well.

    It is waiting for room, for its host or for an armed cluster, somebody ended its start, or it
    could not be started: each of these can be read. One that ran and is gone, and nothing follows,
    was forgotten.
    """
    runs, left = {run["vm_id"] for run in facts.active}, dict[UUID, Row]()
    for run in sorted(facts.rows["vm_run"], key=lambda run: int(run["generation"])):
        left[run["vm_id"]] = run
    last = _last_of_each_vm(facts)
    waiting = {row["vm_id"] for row in facts.rows["planned_stop"]}
    armed = {row["id"] for row in facts.rows["cluster"] if row["armed"]}
    for vm in facts.rows["vm"]:
        wanted = vm["wanted"] and vm["protected"] and not vm["removed_at"]
        if not wanted or vm["id"] in runs | waiting or vm["cluster_id"] not in armed:
            continue
        newest = last.get(vm["id"], {})
        if (newest.get("kind"), newest.get("state")) == ("vm.start", "succeeded"):
            why = left.get(vm["id"], {}).get("end_reason")
            yield f"{vm['name']} ran, is down ({why}), and nobody starts it"


def vms_come_back_from_a_planned_stop(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """A VM that was shut down with its host runs again, is being started, or waits for its host."""
    runs = {run["vm_id"] for run in facts.active}
    waiting = {row["vm_id"]: row for row in facts.rows["planned_stop"]}
    last = _last_of_each_vm(facts)
    states = {host["id"]: host["state"] for host in facts.rows["host"]}
    owed = {row["vm_id"] for row in facts.rows["made_room"] if row["owed"]}  # not with its host
    for vm in facts.rows["vm"]:
        if vm["id"] in runs | owed or not vm["wanted"] or vm["removed_at"]:
            continue
        row, newest = waiting.get(vm["id"]), last.get(vm["id"], {})
        stopped = (newest.get("kind"), newest.get("state")) == ("vm.stop", "succeeded")
        if row is None and stopped:
            yield f"{vm['name']} was shut down with its host, and nobody remembers it"
        if row is not None and row["start_id"] is None and states[row["host_id"]] == "up":
            yield f"{vm['name']} was shut down with its host, which is up, and is not started"


def operations_end_or_say_why_they_wait(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I4: nothing is lost on the way."""
    for op in facts.rows["operation"]:
        what = f"{op['kind']} {op['target_name']}"
        if op["state"] == "waiting" and not (op["reason_code"] and op["waiting_for"]):
            yield f"{what} waits without a reason"
        if op["state"] in OPEN and op["state"] != "waiting":
            yield f"{what} is still {op['state']}"
        if op["state"] == "failed" and not (op["problem"] or {}).get("code"):
            yield f"{what} failed without a problem"


CLOSING = ("succeeded", "failed", "cancelled", "needs_attention", "refused")
"""How the type of an event ends that closes an operation; an item of a batch may be refused."""


def operations_end_once(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """I4: nothing is doubled; each end has one event, and a try has one end at most."""
    ends = Counter(
        event["operation_id"]
        for event in facts.rows["event"]
        if event["type"].rpartition(".")[2] in CLOSING
    )
    for op in facts.rows["operation"]:
        ended = bool(op["workflow"]) and op["state"] not in OPEN
        least, most = int(ended), op["attempt"] - int(not ended)
        if not least <= ends[op["id"]] <= most:
            yield f"{op['kind']} {op['target_name']} has {ends[op['id']]} closing events"


def steps_end_with_their_operations(_centre: DataCentre, facts: Facts) -> Iterator[str]:
    """The tree of an operation that ended by itself shows no step as running.

    One that was superseded did not: of a worker that died with its step nobody asks how it went.
    """
    operations = facts.by_id("operation")
    for step in facts.rows["step"]:
        owner = operations[step["operation_id"]]
        ended = owner["state"] not in OPEN and owner["reason_code"] != "superseded"
        if step["state"] == StepState.RUNNING and ended:
            yield f"{step['name']} of {owner['kind']} {owner['target_name']} still runs"


QUIET: tuple[Check, ...] = (
    one_copy_at_most,
    every_copy_has_its_run,
    every_running_run_has_its_copy,
    nothing_stays_paused,
    nothing_stays_hung,
    every_wanted_vm_is_accounted_for,
    no_protected_vm_is_forgotten,
    vms_come_back_from_a_planned_stop,
    operations_end_or_say_why_they_wait,
    operations_end_once,
    steps_end_with_their_operations,
)

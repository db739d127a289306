"""Processes of the engine die or freeze at the worst moment; each VM still runs exactly once.

The worker, the fencing process and the API run with traps (`tests.lab.planted`): a test sets one,
and the process that reaches it gets the signal once. The supervisor starts what died again. In the
cluster's window the engine cuts the power of h1 only; hosts that read off cost no such budget.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from cli.up import process_command
from lab import processes
from lab.bmc_control import BmcMode
from lab.lab import Lab
from tests.lab.center import Center, Vm, planted, role_env, running_center, until
from tests.lab.planted import set_trap, trap_file
from tests.lab.points import CLAIMED, points
from worker.child import bound_to_parent

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

STEPS = tuple(
    point
    for point in points()
    if point == CLAIMED or (point.startswith("end:") and ":operation." not in point)
)
POINTS = tuple(STEPS[number : number + 2] for number in range(0, len(STEPS), 2))
"""Every step of a recovery but the book-keeping, after its effect and before its answer; and
`claimed`, between the claim of a run and `create()`. Two a recovery, because each costs a step's
heartbeat limit."""


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    command = planted("worker", "fencing", "api", plant="traps")
    with running_center(fresh_lab, engine_var, "fast", command) as found:
        yield found


@pytest.fixture
def center(running: Center) -> Center:
    running.settle()
    return running


@pytest.fixture(scope="module")
def fleet(running: Center) -> tuple[Vm, ...]:
    """Four VMs that wander from host to host while hosts and processes die."""
    return tuple(running.running_vm("fleet", "h1") for _ in range(4))


def trap(center: Center, point: str, number: signal.Signals = signal.SIGKILL) -> None:
    set_trap(center.engine.settings.var, point, number)


def sprung(center: Center, point: str) -> bool:
    return not trap_file(center.engine.settings.var, point).exists()


def busiest(center: Center) -> str:
    hosts = {name: center.host(name)["vms"] for name in center.hosts}
    return max(hosts, key=lambda name: hosts[name])


def into_service(center: Center) -> None:
    for host in center.hosts:
        center.into_service(host)


@pytest.mark.parametrize("points", POINTS, ids="+".join)
def test_killed_at_any_step_of_a_recovery_each_vm_runs_exactly_once(
    running: Center, fleet: tuple[Vm, ...], points: tuple[str, ...], figure: Figure
) -> None:
    into_service(running)
    victim = busiest(running)
    epoch = running.host(victim)["epoch"]
    with running.lab.sampler() as sampler:
        for point in points:
            trap(running, point)
        incident = running.recover_from(victim, running.lab.crash)
        assert all(sprung(running, point) for point in points)
        assert incident["outcome"] == "recovered"
        assert incident["vms"]
        back = max(vm["recovery_s"] for vm in incident["vms"])
        figure(f"all of {len(incident['vms'])} VMs run again {back:.2f} s after the last answer")
        running.assert_one_copy_each(sampler.result(), *fleet)
        running.activate(victim)
        running.assert_one_copy_each(sampler.result(), *fleet)
    assert running.host(victim)["epoch"] == epoch + 1


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_monitor_killed_as_a_host_loses_power_is_replaced_and_the_vms_come_back(
    running: Center, fleet: tuple[Vm, ...]
) -> None:
    into_service(running)
    victim = busiest(running)

    def fault(host: str) -> None:
        running.lab.crash(host)
        kill(running.engine.pids["monitor"])

    with running.lab.sampler() as sampler:
        assert running.recover_from(victim, fault)["outcome"] == "recovered"
        running.assert_one_copy_each(sampler.result(), *fleet)


def test_temporal_killed_during_a_recovery_loses_nothing(
    running: Center, fleet: tuple[Vm, ...]
) -> None:
    into_service(running)
    victim = busiest(running)
    known = len(running.incidents(victim))
    server = running.engine.endpoint.server
    assert server is not None
    with running.lab.sampler() as sampler:
        running.lab.crash(victim)
        incident = running.new_incident(victim, known)
        restarts = server.restarts
        kill(server.pid)
        until(lambda: server.restarts > restarts, "Temporal is started again")
        assert running.closed(incident["id"])["outcome"] == "recovered"
        running.assert_one_copy_each(sampler.result(), *fleet)


def test_an_api_killed_between_commit_and_start_loses_no_operation_and_doubles_none(
    center: Center,
) -> None:
    vm = center.add_vm("accepted")
    key = {"Idempotency-Key": str(uuid4())}
    path = f"/api/v1/vms/{vm.id}/actions/start"
    trap(center, "accepted")
    with center.lab.sampler() as sampler:
        with pytest.raises(httpx2.TransportError):
            center.client.post(path, json={}, headers=key)
        until(lambda: answers(center), "the API is started again")
        again = center.client.post(path, json={}, headers=key)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert center.ended(again.json()["id"])["state"] == "succeeded"
        starts = center.get("/operations", kind="vm.start", target_id=vm.id)["items"]
        assert len(starts) == 1
        center.assert_one_copy_each(sampler.result(), vm)


def answers(center: Center) -> bool:
    with suppress(httpx2.TransportError):
        return bool(center.client.get("/readyz").status_code == 200)
    return False


def test_the_fencing_process_killed_while_it_cuts_power_ends_its_agent_and_fences_again(
    center: Center,
) -> None:
    vm = center.running_vm("cut", "h1")
    trap(center, "agent")
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.isolate)
        assert sprung(center, "agent")
        assert incident["outcome"] == "recovered"
        assert ("bmc-h1", "off") in {
            (fact["device"], fact["verdict"]) for fact in incident["certificate"]["evidence"]
        }
        center.assert_one_copy_each(sampler.result(), vm)


def is_stopped(pid: int) -> bool:
    found = processes.stat(pid)
    return found is not None and found.state == "T"


@contextmanager
def frozen(center: Center, role: str) -> Iterator[None]:
    """Wait until a trap has stopped a process; it goes on at the end of the block."""
    pid = center.engine.pids[role]
    until(lambda: is_stopped(pid), f"the {role} process is stopped")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def second_worker(center: Center) -> Iterator[None]:
    """One more worker beside the engine's own, ended at the end of the block."""
    log = center.engine.settings.var / "log" / "second-worker.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            bound_to_parent(process_command("worker")),
            env=role_env(center.engine),
            stdout=output,
            stderr=output,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_a_create_of_a_frozen_worker_reaches_no_host_that_was_fenced_meanwhile(
    center: Center,
) -> None:
    vm = center.add_vm("late")
    known, epoch = len(center.incidents("h1")), center.host("h1")["epoch"]
    trap(center, "claimed", signal.SIGSTOP)
    with center.lab.sampler() as sampler, ExitStack() as stack:
        body = {"host_id": center.hosts["h1"]}
        start = center.post(f"/vms/{vm.id}/actions/start", body)
        with frozen(center, "worker"):
            # Later than the trap has sprung: it has none, and could have taken the step.
            stack.enter_context(second_worker(center))
            assert sampler.result().hosts_of(vm.name) == ()
            center.lab.isolate("h1")
            incident = center.closed(center.new_incident("h1", known)["id"])
            assert incident["outcome"] == "recovered"
            elsewhere = center.vm(vm)["host_name"]
            assert elsewhere in ("h2", "h3")
            center.activate("h1")
            assert center.host("h1")["epoch"] == epoch + 1
        # A VM that goes through all its steps there shows that the worker works off its backlog.
        center.running_vm("after", "h1")
        until(lambda: center.ended(start["id"])["done"], "the late start has ended")
        assert center.get(f"/operations/{start['id']}")["state"] == "cancelled"
        center.assert_one_copy_each(sampler.result(), vm)
        assert sampler.result().hosts_of(vm.name) == (elsewhere,)


def test_a_host_that_answers_is_not_certified_dead_however_its_controller_lies(
    center: Center,
) -> None:
    """The cable is back before the power is read back, and the controller says off for a lie."""
    vm = center.running_vm("contradicted", "h1")
    known, epoch = len(center.incidents("h1")), center.host("h1")["epoch"]
    center.lab.bmc("h1", BmcMode.LYING)
    trap(center, "end:fencing.power_off", signal.SIGSTOP)
    with center.lab.sampler() as sampler:
        center.lab.isolate("h1")
        incident = center.new_incident("h1", known)
        with frozen(center, "fencing"):
            center.lab.heal("h1")
            center.lab.wait_ready("h1")
        closed = center.closed(incident["id"])
        assert (closed["outcome"], closed["certificate"]) == ("returned", None)
        assert "SIGN_OF_LIFE" in fence_problems(center, incident)
        until(lambda: center.host("h1")["state"] == "up", "h1 is up again")
        assert center.host("h1")["epoch"] == epoch
        center.assert_one_copy_each(sampler.result(), vm)
        assert center.vm(vm)["host_name"] == "h1"


def fence_problems(center: Center, incident: dict[str, Any]) -> set[str]:
    """The codes with which the fences of an incident ended."""
    children = center.get(f"/operations/{incident['operation_id']}")["children"]
    problems = [child["problem"] for child in children if child["kind"] == "host.fence"]
    assert all(problem["next_step"] for problem in problems)
    return {problem["code"] for problem in problems}

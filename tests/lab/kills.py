"""Each process of the engine killed at each step of a recovery of ten VMs, one pair a recovery.

Two hosts, so that all VMs are together on the one whose power is cut, and all of them on the other
afterwards: the next round cuts that one. A trap at the step kills the process by its pid, whichever
process runs the step (`tests.lab.planted`); Temporal's server counts as one of the processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from lab.lab import Lab
from lab.sampler import Samples
from tests.lab.center import Center, Vm, planted, running_center, until
from tests.lab.planted import set_trap, trap_file
from tests.lab.points import points

HOSTS = 2
VMS = 10
ROLES = ("worker", "fencing", "monitor", "relay", "api")
PROCESSES = (*ROLES, "temporal")
POINTS = points()
"""Every step of a recovery after a power cut, as recorded, and the points between them."""

ANSWERS_AGAIN_S = 60.0
"""How long a request is repeated while the API is being started again."""


@dataclass(frozen=True)
class Pair:
    """Which process is killed at which point."""

    process: str
    point: str


@dataclass(frozen=True)
class Round:
    """One recovery with one kill."""

    pair: Pair
    back_once: int
    took_s: float  # from the power cut until the last VM ran again, as the engine recorded it
    wrong: tuple[str, ...]


def pairs() -> tuple[Pair, ...]:
    """All of them; each row of as many as there are points has every point and every process."""
    return tuple(
        Pair(PROCESSES[(number + shift) % len(PROCESSES)], point)
        for shift in range(len(PROCESSES))
        for number, point in enumerate(POINTS)
    )


class Patient(httpx2.BaseTransport):
    """Repeats what is only read while nobody answers: the API is one of those that are killed."""

    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request, or as many as it takes."""
        if request.method != "GET":
            return self._inner.handle_request(request)
        answers: list[httpx2.Response] = []

        def answered() -> bool:
            with suppress(httpx2.TransportError):
                answer = self._inner.handle_request(request)
                answer.read()
                answers.append(answer)
            return bool(answers)

        until(answered, f"an answer to {request.method} {request.url.path}", ANSWERS_AGAIN_S)
        return answers[0]


@contextmanager
def killing(lab: Lab, var: Path) -> Iterator["Kills"]:
    """An engine with traps over a lab of two hosts, and ten VMs on one of them."""
    command = planted(*ROLES, plant="traps")
    with running_center(lab, var, "fast", command, Patient()) as center:
        yield Kills(center)


class Kills:
    """The engine, its ten VMs, and the rounds that it went through."""

    def __init__(self, center: Center) -> None:
        self.center = center
        self.vms = tuple(center.add_vm("ten") for _ in range(VMS))
        body = {"host_id": center.hosts["h1"]}
        starts = [center.post(f"/vms/{vm.id}/actions/start", body) for vm in self.vms]
        for start in starts:
            ended = center.ended(start["id"])
            assert ended["state"] == "succeeded", ended

    def round(self, pair: Pair) -> Round:
        """Cut the power of the host with all VMs, and kill a process at a point of what follows."""
        center = self.center
        for host in center.hosts:
            center.into_service(host)
        victim = center.vm(self.vms[0])["host_name"]
        until(lambda: self._pid(pair.process) is not None, f"{pair.process} runs")
        pid = self._pid(pair.process)
        set_trap(center.engine.settings.var, pair.point, pid=pid)
        with center.lab.sampler() as sampler:
            incident = center.recover_from(victim, center.lab.crash)
            samples = sampler.result()
        until(
            lambda: self._pid(pair.process) not in (None, pid), f"{pair.process} is started again"
        )
        center.activate(victim)
        return self._judge(pair, incident, samples)

    def _pid(self, process: str) -> int | None:
        engine = self.center.engine
        if process != "temporal":
            return engine.pids.get(process)
        assert engine.endpoint.server is not None
        return engine.endpoint.server.pid

    def _judge(self, pair: Pair, incident: dict[str, Any], samples: Samples) -> Round:
        wrong = [f"{vm} ran twice at once" for vm in samples.doubled()]
        if trap_file(self.center.engine.settings.var, pair.point).exists():
            wrong.append(f"{pair.point} was never reached")
        if incident["outcome"] != "recovered":
            wrong.append(f"the incident ended {incident['outcome']}")
        tree = self.center.get(f"/operations/{incident['operation_id']}")
        starts = [child for child in tree["children"] if child["kind"] == "vm.start"]
        if len(starts) != VMS:
            wrong.append(f"{len(starts)} starts for {VMS} VMs")
        back = [vm for vm in self.vms if self._runs_once(vm, samples)]
        took = [vm["recovery_s"] for vm in incident["vms"] if vm["recovery_s"] is not None]
        return Round(pair, len(back), max(took, default=0.0), tuple(wrong))

    def _runs_once(self, vm: Vm, samples: Samples) -> bool:
        view = self.center.vm(vm)
        return view["state"] == "up" and samples.hosts_of(vm.name) == (view["host_name"],)

"""The faults of `make bench-recovery`, each on an engine of its own in the same lab of three hosts.

The victim is always h1, so that it spends no other host's fence budget; before each run everything
is whole, and all VMs run on h1 and have booted.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from benchmarks.figures import Figure
from benchmarks.recovery_runs import Case, Json, Run, steps_of, timed
from cli.demo_report import phase_times
from lab import processes
from lab.bmc_control import BmcMode
from lab.lab import Lab
from lab.sampler import Samples
from tests.lab.center import Center, Vm, running_center
from tests.lab.whole import make_whole

VICTIM = "h1"
TEN, FOUR = 10, 4
LOOK_S = 0.5
"""Between looks at an incident. Shorter: the looking itself slows down what is measured."""

PATIENCE_S = 180.0
HUNG_S = 300.0
CERTIFIED_MAX_S = 1.0
CUT_FIRST_MAX_S, CUT_LAST_MAX_S = 4.0, 6.0
ISOLATED_MAX_S = {"fast": 9.0, "balanced": 20.0, "classic": 66.0}


@dataclass(frozen=True)
class Bench:
    """A lab, a folder for the engines, how often each fault is made, and where to tell of it."""

    lab: Lab
    var: Path
    runs: int
    say: Callable[[str], None]

    @contextmanager
    def center(self, name: str, profile: str) -> Iterator[Center]:
        """A fresh engine that manages the whole lab."""
        make_whole(self.lab)
        var = self.var / f"{name}-{profile}"
        with running_center(self.lab, var, profile) as center:
            yield center


def until(holds: Callable[[], object], what: str, limit_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds, and look seldom."""
    processes.until(lambda: bool(holds()), limit_s, what, poll_s=LOOK_S)


class Trial:
    """The VMs of one case on the victim, and how they fare."""

    def __init__(self, bench: Bench, center: Center, vms: int) -> None:
        self.bench, self.center = bench, center
        self.vms = tuple(center.add_vm("vm") for _ in range(vms))

    def begin(self) -> None:
        """Everything whole, all VMs booted on the victim."""
        self.center.settle()
        for disk in map(self._disk, self.vms):
            with disk.open("r+b") as file:
                file.write(bytes(512))
        body = {"host_id": self.center.hosts[VICTIM]}
        starts = [self.center.post(f"/vms/{vm.id}/actions/start", body) for vm in self.vms]
        for start in starts:
            ended = self.center.ended(start["id"])
            if ended["state"] != "succeeded":
                raise RuntimeError(f"a VM did not start: {ended['problem']}")
        until(self._booted, "all guests have booted")

    def _booted(self) -> bool:
        return all(self._disk(vm).read_bytes().startswith(b"heartbeat") for vm in self.vms)

    def _disk(self, vm: Vm) -> Path:
        return Path(self.center.lab.inventory().shared) / f"{vm.name}.img"

    def recovered(self, fault: Callable[[str], None]) -> tuple[Json, datetime, Samples]:
        """Make the fault and follow it to its end: the incident, when it was, what was seen."""
        known = len(self.center.incidents(VICTIM))
        with self.center.lab.sampler() as sampler:
            fault_at = datetime.now(UTC)
            fault(VICTIM)
            until(lambda: len(self.center.incidents(VICTIM)) > known, "an incident is opened")
            incident_id = self.center.incidents(VICTIM)[0]["id"]
            incident = self.closed(incident_id)
            samples = sampler.result()
        self.check(incident, samples)
        return incident, fault_at, samples

    def closed(self, incident_id: str) -> Json:
        """An incident once it is closed."""
        until(lambda: not self.center.get(f"/incidents/{incident_id}")["open"], "it is closed")
        incident: Json = self.center.get(f"/incidents/{incident_id}")
        return incident

    def check(self, incident: Json, samples: Samples) -> None:
        """A time of a recovery that did not bring everything back, once, is no figure."""
        if incident["outcome"] != "recovered" or len(incident["vms"]) != len(self.vms):
            raise RuntimeError(f"not recovered: {incident['outcome']}, {incident['why']}")
        self.center.assert_one_copy_each(samples, *self.vms)

    def run_of(self, incident: Json, fault_at: datetime) -> Run:
        """What is kept of one recovery."""
        back = [datetime.fromisoformat(vm["running_again_at"]) for vm in incident["vms"]]
        after = [(at - fault_at).total_seconds() for at in back]
        tree = self.center.get(f"/operations/{incident['operation_id']}")
        return Run(
            phases=phase_times(incident, fault_at),
            first_s=round(min(after), 3),
            last_s=round(max(after), 3),
            load=os.getloadavg()[0],
            steps=tuple(steps_of(tree, fault_at)),
        )


def power_cut(bench: Bench) -> Iterator[Case]:
    """A silent power cut of a host with ten VMs; its BMC lives on and reads off."""
    case = Case("power cut, ten VMs, balanced")
    with bench.center("cut", "balanced") as center:
        trial = Trial(bench, center, TEN)
        for number in range(bench.runs):
            trial.begin()
            incident, fault_at, _samples = trial.recovered(center.lab.crash)
            case.runs.append(trial.run_of(incident, fault_at))
            bench.say(f"{case.name} {number + 1}/{bench.runs}: {case.runs[-1].told()}")
    loads = [run.load for run in case.runs]
    first, last = [run.first_s for run in case.runs], [run.last_s for run in case.runs]
    case.figures = [
        timed(f"{case.name}: first", first, CUT_FIRST_MAX_S, loads),
        timed(f"{case.name}: last", last, CUT_LAST_MAX_S, loads),
    ]
    yield case


def isolation(bench: Bench) -> Iterator[Case]:
    """The host's cable is pulled while its guests live: they must be gone before they are back."""
    for profile, limit_s in ISOLATED_MAX_S.items():
        case = Case(f"isolation, four VMs, {profile}")
        with bench.center("isolation", profile) as center:
            trial = Trial(bench, center, FOUR)
            for number in range(bench.runs):
                trial.begin()
                incident, fault_at, samples = trial.recovered(center.lab.isolate)
                _check_off_first(incident, samples, trial.vms)
                case.runs.append(trial.run_of(incident, fault_at))
                bench.say(f"{case.name} {number + 1}/{bench.runs}: {case.runs[-1].told()}")
        loads = [run.load for run in case.runs]
        last = [run.last_s for run in case.runs]
        case.figures = [timed(f"{case.name}: last", last, limit_s, loads)]
        yield case


def _check_off_first(incident: Json, samples: Samples, vms: tuple[Vm, ...]) -> None:
    """Verified off, and each guest gone before the sampler saw it elsewhere."""
    said = {fact["verdict"] for fact in incident["certificate"]["evidence"]}
    if "off" not in said:
        raise RuntimeError(f"not verified off: {incident['certificate']['evidence']}")
    for vm in vms:
        seen = [each for each in samples.timeline if each.guest.vm == vm.name]
        gone = [s.t for s in seen if (s.what, s.guest.host) == ("vanished", VICTIM)]
        back = [s.t for s in seen if s.what == "appeared" and s.guest.host != VICTIM]
        if not gone or not back or min(back) < max(gone):
            raise RuntimeError(f"{vm.name} was elsewhere before it was gone from {VICTIM}")


def hung_libvirtd(bench: Bench) -> Iterator[Case]:
    """libvirtd is frozen for five minutes; guests and kernel are fine. Nothing must happen."""
    case = Case(f"libvirtd hung for {HUNG_S:.0f} s")
    fences = incidents = 0
    with bench.center("hung", "balanced") as center:
        trial = Trial(bench, center, FOUR)
        for number in range(bench.runs):
            trial.begin()
            known = (_fences(center), len(center.incidents(VICTIM)))
            with center.lab.sampler() as sampler:
                before = {copy.pid for copy in sampler.result().running}
                _hang(center)
                until(lambda: center.host(VICTIM)["state"] == "up", "the host is up again")
                samples = sampler.result()
            fences += _fences(center) - known[0]
            incidents += len(center.incidents(VICTIM)) - known[1]
            center.assert_one_copy_each(samples, *trial.vms)
            if {copy.pid for copy in samples.running} != before:
                raise RuntimeError("guests were touched")
            bench.say(f"{case.name} {number + 1}/{bench.runs}: {fences} fences so far")
    value = f"{fences} fences, {incidents} incidents, guests untouched ({bench.runs} runs)"
    case.figures = [Figure(case.name, value, "no fence", fences == incidents == 0)]
    yield case


def _hang(center: Center) -> None:
    center.lab.hang(VICTIM)
    try:
        end = monotonic() + HUNG_S
        until(lambda: monotonic() >= end, "the time is over", limit_s=2 * HUNG_S)
        state = center.host(VICTIM)["state"]
        if state != "connecting":
            raise RuntimeError(f"{VICTIM} is {state} after {HUNG_S:.0f} s")
    finally:
        center.lab.unhang(VICTIM)


def _fences(center: Center) -> int:
    found = center.get("/operations", kind="host.fence", target_id=center.hosts[VICTIM])
    return len(found["items"])


def dead_bmc(bench: Bench) -> Iterator[Case]:
    """The BMC dies with its host: the recovery waits, and goes on with a person's word."""
    case = Case("BMC dead with its host")
    word_to_certificate: list[float] = []
    reasons: set[str] = set()
    with bench.center("dead-bmc", "balanced") as center:
        trial = Trial(bench, center, FOUR)
        for number in range(bench.runs):
            trial.begin()
            run, certified_s, reason = _confirmed(trial)
            case.runs.append(run)
            word_to_certificate.append(certified_s)
            reasons.add(reason)
            told = f"word → certificate {certified_s:.2f} s, {run.told()}"
            bench.say(f"{case.name} {number + 1}/{bench.runs}: waited with {reason}; {told}")
    loads = [run.load for run in case.runs]
    said = Figure(f"{case.name}: it waits and says why", ", ".join(sorted(reasons)))
    what = f"{case.name}: word → certificate"
    case.figures = [said, timed(what, word_to_certificate, CERTIFIED_MAX_S, loads)]
    yield case


def _confirmed(trial: Trial) -> tuple[Run, float, str]:
    """A recovery that waited for a person's word; its times count from that word on."""
    center, lab = trial.center, trial.center.lab
    known = len(center.incidents(VICTIM))
    with lab.sampler() as sampler:
        lab.bmc(VICTIM, BmcMode.DEAD)
        fault_at = datetime.now(UTC)
        lab.crash(VICTIM)
        until(lambda: len(center.incidents(VICTIM)) > known, "an incident is opened")
        incident = center.incidents(VICTIM)[0]
        reason = center.waiting(incident)["reason_code"]
        if center.get(f"/incidents/{incident['id']}")["certificate"] is not None:
            raise RuntimeError("it is certified dead without any proof")
        said_at = datetime.now(UTC)
        body = {"reason": "seen in the rack: no light, no fan"}
        center.act(f"/hosts/{center.hosts[VICTIM]}/actions/confirm-dead", body)
        incident = trial.closed(incident["id"])
        samples = sampler.result()
    trial.check(incident, samples)
    issued_at = datetime.fromisoformat(incident["certificate"]["issued_at"])
    run = trial.run_of(incident, fault_at)
    return run, (issued_at - said_at).total_seconds(), reason


CASES: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "power-cut": power_cut,
    "isolation": isolation,
    "dead-bmc": dead_bmc,
    "hung-libvirtd": hung_libvirtd,
}

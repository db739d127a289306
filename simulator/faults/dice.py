"""Draws single faults that fit a setup, from one stream of a seed."""

from collections.abc import Callable
from random import Random

from domain.disarming import DisarmMode
from simulator.engine import ROLES
from simulator.faults.machines import Way
from simulator.faults.plan import Fault, Value
from simulator.setup import Setup
from simulator.stage import DATABASE, TEMPORAL
from simulator.world.network import Net

MOMENTS = (
    *("incident.opened", "fence.claimed", "certificate.issued", "run.lost", "run.placed"),
    *("run.starting", "guest.defined", "guest.started", "incident.closed", "host.marked"),
    *("step.started:fencing.read_power", "step.started:recovery.assess"),
    *("step.started:fencing.power_off", "step.started:fencing.read_back"),
    *("step.started:fencing.certify", "step.started:recovery.claim_victims"),
    *("step.started:guest.define", "step.started:guest.start", "step.started:recovery.report"),
    *("bmc.command", "host.power_lost", "workflow.started:RecoverHost"),
    *("workflow.started:FenceHost", "workflow.started:StartVm"),
    *("step.started:vm.examine", "step.started:vm.settle"),
)
"""Behind which events a fault may come; those of a recovery, most of all."""

MOVING = (
    *("run.migrating", "guest.leaving", "guest.arrived", "guest.left", "run.ended"),
    *("step.started:migration.reserve", "step.started:migration.move"),
    *("step.started:migration.settle", "workflow.started:MigrateVm", "guest.barred"),
    *("workflow.started:MaintainHost", "workflow.started:ShutDownHost"),
    *("step.started:host.power_off_empty", "step.started:host.power_on_again"),
    *("step.started:host.await_reboot", "step.started:host.begin_return", "host.power_on"),
)
"""Behind which events of a migration, or of a host that is emptied, a fault may come."""

MOVERS = (
    ("vm.migrate", "MigrateVm"),
    ("host.maintain", "MaintainHost"),
    ("host.shutdown", "ShutDownHost"),
    ("host.reboot", "ShutDownHost"),
)

WORKFLOWS = ("RecoverHost", "FenceHost", "StartVm", "ActivateHost", "RecoverVm")


class Dice:
    """Draws single faults that fit a setup and so many machines of the engine."""

    def __init__(self, rng: Random, setup: Setup, machines: int = 1) -> None:
        self.rng = rng
        self.machines = [f"engine-{number + 1}" for number in range(machines)]
        self.hosts = [host.name for host in setup.hosts]
        self.racks = list(dict.fromkeys(host.rack for host in setup.hosts))
        self.vms = [vm.name for vm in setup.vms]

    def at(self) -> float:
        """Some time in the first quarter of a minute."""
        return round(self.rng.uniform(0.0, 15.0), 2)

    def lasts(self) -> float | None:
        """Seconds, or until everything is healed."""
        choices = (None, None, self.rng.uniform(0.2, 5.0), self.rng.uniform(5.0, 40.0))
        found = self.rng.choice(choices)
        return None if found is None else round(found, 2)

    def host(self) -> str:
        """Some host."""
        return self.rng.choice(self.hosts)

    def machine(self) -> str:
        """Some machine of the engine."""
        return self.rng.choice(self.machines)

    def process(self) -> str:
        """Some process."""
        return f"{self.rng.choice(ROLES)}@{self.machine()}"

    def host_failure(self, host: str | None = None) -> Fault:
        """What ends in a recovery, unless it heals before."""
        name = host or self.host()
        draw = self.rng.random()
        if draw < 0.6:
            return self.power_cut(name)
        if draw < 0.9:
            return Fault(
                kind="link.cut",
                at_s=self.at(),
                subject=name,
                lasts_s=self.lasts(),
                args={"net": Net.MANAGEMENT.value, "way": self.way()},
            )
        if draw < 0.95:
            kind = "host.libvirtd_hung"
            return Fault(kind=kind, at_s=self.at(), subject=name, lasts_s=self.lasts())
        boot_s = round(self.rng.uniform(0.0, 20.0), 1)
        return Fault(kind="host.reboot", at_s=self.at(), subject=name, args={"boot_s": boot_s})

    def power_cut(self, host: str) -> Fault:
        """With its power controller, now and then."""
        with_bmc = self.rng.random() < 0.2
        args: dict[str, Value] = {"with_bmc": True} if with_bmc else {}
        return Fault(
            kind="host.power_cut", at_s=self.at(), subject=host, lasts_s=self.lasts(), args=args
        )

    def way(self) -> str:
        """Both ways, mostly."""
        return self.rng.choice(("both", "both", "to", "from"))

    def of_world(self) -> Fault:
        """Any fault of hosts, controllers, storage and links."""
        return self.rng.choice(
            (
                self.host_failure,
                self.host_failure,
                self.small_fault,
                self.bmc,
                self.link,
                self.storage,
            )
        )()

    def small_fault(self) -> Fault:
        """What hurts a host and does not kill it."""
        kind = self.rng.choice(("host.slow", "host.libvirtd_down", "host.libvirtd_hung"))
        args: dict[str, Value] = (
            {"times": round(self.rng.uniform(3, 60), 1)} if kind == "host.slow" else {}
        )
        return Fault(
            kind=kind, at_s=self.at(), subject=self.host(), lasts_s=self.lasts(), args=args
        )

    def bmc(self) -> Fault:
        """A power controller that is not what it should be; a liar only now and then."""
        kinds = ("dead", "hanging", "slow", "wrong_password", "already_off_error", "lying")
        (kind,) = self.rng.choices(kinds, weights=(4, 3, 3, 2, 3, 1))
        return Fault(
            kind=f"bmc.{kind}",
            at_s=self.at(),
            subject=self.host(),
            lasts_s=self.lasts(),
            args={"cut_s": round(self.rng.uniform(1, 15), 1)} if kind == "slow" else {},
        )

    def link(self) -> Fault:
        """One endpoint loses a network."""
        net = self.rng.choice(tuple(Net))
        ends = {
            Net.MANAGEMENT: [*self.hosts, *self.machines, DATABASE, TEMPORAL],
            Net.STORAGE: self.hosts,
            Net.BMC: [*(f"bmc-{host}" for host in self.hosts), *self.machines],
        }
        return Fault(
            kind="link.cut",
            at_s=self.at(),
            subject=self.rng.choice(ends[net]),
            lasts_s=self.lasts(),
            args={"net": net.value, "way": self.way()},
        )

    def storage(self) -> Fault:
        """The storage serves nobody for a while."""
        kind = self.rng.choice(("storage.read_only", "storage.gone"))
        return Fault(kind=kind, at_s=self.at(), lasts_s=self.lasts())

    def of_engine(self) -> Fault:
        """Any fault of the engine's processes and machines, and of what they need."""
        return self.rng.choice((self.of_process, self.of_process, self.of_machine))()

    def of_process(self) -> Fault:
        """One process, or what all of them need."""
        kinds = (
            *("process.kill", "process.kill", "process.freeze", "process.kill_before_commit"),
            *("process.kill_after_commit", "database.commit_failed", "database.commit_lost"),
            *("database.away", "temporal.down", "worker.evict"),
        )
        kind = self.rng.choice(kinds)
        subject = self.process()
        if kind in ("database.away", "temporal.down"):
            subject = ""
        elif kind == "worker.evict":
            subject = f"worker@{self.machine()}"
        lasts = kind in ("process.freeze", "database.away", "temporal.down")
        lasts_s = self.a_while() if lasts else None
        return Fault(kind=kind, at_s=self.at(), subject=subject, lasts_s=lasts_s)

    def of_machine(self) -> Fault:
        """One whole machine of the engine: its power, clock and links; or an upgrade."""
        return self.rng.choice(
            (self.machine_failure, self.clock_jump, self.cut_from_hosts, self.upgrade)
        )()

    def machine_failure(self) -> Fault:
        """A machine dies, or stands still; it may be gone until everything is healed."""
        kind = self.rng.choice(("machine.power_cut", "machine.freeze"))
        return Fault(kind=kind, at_s=self.at(), subject=self.machine(), lasts_s=self.lasts())

    def clock_jump(self) -> Fault:
        """The clock of one machine is wrong for a while."""
        by_s = round(self.rng.choice((-1, 1)) * self.rng.uniform(1, 900), 1)
        return Fault(
            kind="clock.jump",
            at_s=self.at(),
            subject=self.machine(),
            lasts_s=self.a_while(),
            args={"by_s": by_s},
        )

    def cut_from_hosts(self) -> Fault:
        """A machine hears no host any more, and no controller; database and Temporal it does."""
        net = self.rng.choice((Net.MANAGEMENT, Net.MANAGEMENT, Net.BMC))
        if net is Net.BMC:
            kind, args = "link.cut", {"net": net.value, "way": self.way()}
        else:
            kind, args = "link.partition", {"net": net.value, "other": "hosts"}
        return Fault(
            kind=kind,
            at_s=self.at(),
            subject=self.machine(),
            lasts_s=self.lasts(),
            args=dict(args),
        )

    def upgrade(self) -> Fault:
        """Every machine comes to the next release, as operators do it."""
        machines = self.rng.sample(self.machines, len(self.machines))
        way = self.rng.choice((Way.DRAINED, Way.VERSIONED))
        step_s = round(self.rng.uniform(0.5, 8.0), 2)
        return Fault(
            kind="upgrade",
            at_s=self.at(),
            subject="+".join(machines),
            args={"way": way.value, "step_s": step_s},
        )

    def a_while(self) -> float:
        """Up to half a minute."""
        return round(self.rng.uniform(0.5, 30.0), 2)

    def of_people(self) -> Fault:
        """What people do meanwhile."""
        kinds = (
            *("hand.destroy", "hand.undefine", "hand.foreign", "person.disarm", "person.activate"),
            *("person.start_vm", "person.stop_vm", "person.cancel", "person.retry"),
            *("monitor.late_report", "workflow.terminated", "hand.start", "person.approve"),
        )
        weights = (3, 2, 2, 3, 4, 3, 4, 3, 3, 4, 3, 1, 3)
        (kind,) = self.rng.choices(kinds, weights=weights)
        subjects: dict[str, Callable[[], str]] = {
            "hand.foreign": self.host,
            "person.disarm": str,
            "person.activate": self.host,
            "person.approve": self.host,
            "monitor.late_report": self.host,
            "person.cancel": self.operation,
            "person.retry": self.operation,
            "workflow.terminated": self.workflow,
        }
        subject = subjects.get(kind, self.vm)()
        lasts_s = self.lasts() if kind in ("person.disarm", "person.approve") else None
        return Fault(
            kind=kind, at_s=self.at(), subject=subject, lasts_s=lasts_s, args=self._how(kind)
        )

    def of_guest(self) -> Fault:
        """A guest that ends by itself, or by somebody's hand."""
        kind = self.rng.choice(
            (
                *("guest.crash", "guest.crash", "guest.shutdown", "guest.io_error"),
                *("hand.destroy", "hand.undefine"),
            )
        )
        return Fault(kind=kind, at_s=self.at(), subject=self.vm())

    def move(self) -> Fault:
        """A person moves some VM, or empties a host, be it to switch it off."""
        draw = self.rng.random()
        if draw < 0.2:
            return Fault(kind="person.maintain", at_s=self.at(), subject=self.host())
        if draw < 0.6:
            return self.planned()
        return Fault(kind="person.migrate_vm", at_s=self.at(), subject=self.vm())

    def planned(self) -> Fault:
        """A person shuts some host down, or reboots it, by some policy."""
        kind = self.rng.choice(("person.shutdown", "person.reboot", "person.reboot"))
        vms = self.rng.choice(("migrate", "failover", "freeze", "conditional"))
        return Fault(kind=kind, at_s=self.at(), subject=self.host(), args={"vms": vms})

    def behind_a_move(self) -> Fault:
        """What hurts a migration most, right behind an event of one."""
        draw = self.rng.random()
        if draw < 0.35:
            fault = self.host_failure()
        elif draw < 0.5:
            fault = self.small_fault()
        elif draw < 0.65:
            kind = self.rng.choice(("person.cancel", "workflow.terminated"))
            cancelled, ended = self.rng.choice(MOVERS)
            subject = cancelled if kind == "person.cancel" else ended
            fault = Fault(kind=kind, at_s=0, subject=subject)
        else:
            fault = self.anything()
        at_s = round(self.rng.choice((0.0, self.rng.uniform(0, 0.2), self.rng.uniform(0, 3))), 3)
        changes = {"at_s": at_s, "after_event": self.rng.choice(MOVING)}
        return fault.model_copy(update=changes)

    def vm(self) -> str:
        """Some VM."""
        return self.rng.choice(self.vms)

    def operation(self) -> str:
        """Some kind of operation."""
        return self.rng.choice(("host.recover", "vm.start", "host.activate", "vm.stop"))

    def workflow(self) -> str:
        """Some type of workflow."""
        return self.rng.choice(WORKFLOWS)

    def _how(self, kind: str) -> dict[str, Value]:
        if kind == "person.disarm":
            return {"mode": self.rng.choice(tuple(DisarmMode)).value}
        if kind == "person.approve":
            return {"for_s": self.rng.choice((60, 900))}
        if kind == "person.stop_vm":
            return {"force": self.rng.random() < 0.5}
        if kind == "monitor.late_report":
            return {"epochs_ago": self.rng.choice((0, 0, 1)), "times": self.rng.choice((1, 2, 3))}
        return {}

    def anything(self) -> Fault:
        """Any fault there is."""
        return self.rng.choice((self.of_world, self.of_engine, self.of_people))()

    def behind_a_moment(self) -> Fault:
        """Any fault, right behind an event of a recovery."""
        at_s = round(self.rng.choice((0.0, self.rng.uniform(0, 0.1), self.rng.uniform(0, 3))), 3)
        changes = {"at_s": at_s, "after_event": self.rng.choice(MOMENTS)}
        return self.anything().model_copy(update=changes)

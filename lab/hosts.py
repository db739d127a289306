"""Power, cable and libvirtd of one host.

A host is a mount, UTS, PID and network namespace whose process 1 supervises libvirtd. Killing that
process ends libvirtd and every guest in one stroke: a power cut.

Invariants  a cut is silent: the cable goes down before the kill, or the kernel would send FIN and
            RST that no real power cut sends. Power is read from the process, never from a note,
            and a host is off only when all of its processes are gone.
Races       command line, tests and power controller may act on one host at once: each change holds
            the host's lock.
"""

import signal
from pathlib import Path

from domain.errors import Conflict, NoAnswer, Unavailable
from lab import host_files, network, processes
from lab.processes import ProcessId
from lab.shell import run, spawn_detached
from lab.state import HostPlan, LabState, Paths, locked, read_process, write_private

BOOT_DEADLINE_S = 10.0
"""Until process 1 exists; 30 ms are usual."""

ANSWER_DEADLINE_S = 60.0
"""Until libvirt answers; a second is usual, a busy machine takes many."""

CUT_DEADLINE_S = 20.0
"""Until the kernel has freed all guests' memory."""


class Host:
    """One host of one lab; holds no state of its own."""

    def __init__(self, state: LabState, paths: Paths, plan: HostPlan) -> None:
        self._lab = state.name
        self.plan = plan
        self.folder = paths.host(plan.name)

    @property
    def _init_file(self) -> Path:
        return self.folder / "init.json"

    def init(self) -> ProcessId | None:
        """Process 1 of the running host, as seen from outside; None when the power is off.

        The file only saves a search: whoever booted the host may have died before writing it.
        """
        found = read_process(self._init_file)
        return found if processes.alive(found) else self._search()

    def _search(self) -> ProcessId | None:
        script = str(host_files.init_script(self.folder))
        for pid in processes.pids():
            if script in processes.arguments(pid)[:2] and processes.is_namespace_init(pid):
                return processes.identify(pid)
        return None

    def is_on(self) -> bool:
        """Whether any process of the host may still run."""
        return self.init() is not None

    def power_on(self) -> None:
        """Plug the cable in and boot; returns when process 1 runs, before libvirt answers.

        Idempotent: a running host only gets its cable back.
        """
        with locked(self.folder):
            network.set_link(self._lab, self.plan.number, up=True)
            if not self.is_on():
                self._boot()

    def _boot(self) -> None:
        script = host_files.init_script(self.folder)
        parent = spawn_detached(
            [
                *("unshare", "--mount", "--propagation", "private", "--uts", "--pid", "--fork"),
                *("--kill-child", "--mount-proc", "ip", "netns", "exec"),
                network.namespace_name(self._lab, self.plan.number),
                str(script),
            ],
            host_files.console_log(self.folder),
        )
        found: list[ProcessId] = []

        def booted() -> bool:
            if processes.stat(parent) is None:
                log = host_files.console_log(self.folder)
                raise Unavailable("LAB_BOOT_FAILED", f"{self.plan.name} did not boot; see {log}")
            init = self._search()
            found[:] = [init] if init else []
            return bool(found)

        processes.until(booted, BOOT_DEADLINE_S, f"{self.plan.name} boots")
        write_private(self._init_file, found[0].model_dump_json())

    def cut(self, wait_s: float = CUT_DEADLINE_S) -> None:
        """Cut the power silently and wait until all is gone; a host that is off stays off."""
        with locked(self.folder):
            network.set_link(self._lab, self.plan.number, up=False)
            init = self.init()
            if init is not None:
                processes.send(init, signal.SIGKILL)
                processes.until(lambda: not self.is_on(), wait_s, f"{self.plan.name} is off")

    def isolate(self) -> None:
        """Pull the cable: the host and its guests run on. Idempotent."""
        with locked(self.folder):
            network.set_link(self._lab, self.plan.number, up=False)

    def plug(self) -> None:
        """Plug the cable of a running host in; one that is off stays silent until power on."""
        with locked(self.folder):
            if self.is_on():
                network.set_link(self._lab, self.plan.number, up=True)

    def freeze(self) -> None:
        """Stop libvirtd without ending it; guests run on. Raises Conflict when it does not run."""
        with locked(self.folder):
            self._signal_libvirtd(signal.SIGSTOP, must_exist=True)

    def thaw(self) -> None:
        """Let libvirtd go on; harmless when it is not stopped."""
        with locked(self.folder):
            self._signal_libvirtd(signal.SIGCONT, must_exist=False)

    def kill_libvirtd(self) -> None:
        """End libvirtd alone; process 1 starts it again, guests run on."""
        with locked(self.folder):
            self._signal_libvirtd(signal.SIGKILL, must_exist=True)

    def _signal_libvirtd(self, number: signal.Signals, *, must_exist: bool) -> None:
        found = self.libvirtd()
        sent = found is not None and processes.send(found, number)
        if must_exist and not sent:
            raise Conflict(
                "LAB_NO_LIBVIRTD",
                f"no libvirtd runs on {self.plan.name}",
                next_step=f"holdfast lab power-on {self.plan.name} --name {self._lab}",
            )

    def libvirtd(self) -> ProcessId | None:
        """The host's libvirtd: the child of process 1 by that name."""
        init = self.init()
        if init is None:
            return None
        for pid in processes.pids():
            found = processes.stat(pid)
            if found and found.alive and found.parent == init.pid and found.name == "libvirtd":
                return ProcessId(pid=pid, started=found.started)
        return None

    def is_frozen(self) -> bool:
        """Whether libvirtd is stopped."""
        found = self.libvirtd()
        now = processes.stat(found.pid) if found else None
        return now is not None and now.state == "T"

    def pid_namespace(self) -> int | None:
        """Inode of the host's PID namespace; another one after each boot, None when off."""
        init = self.init()
        return processes.pid_namespace(init.pid) if init else None

    def answers(self, timeout_s: float = 5.0) -> bool:
        """Whether libvirt answers a real call in time."""
        try:
            run("virsh", "-q", "-r", "-c", self.plan.uri, "nodeinfo", timeout_s=timeout_s)
        except Unavailable:
            return False
        return True

    def wait_ready(self, deadline_s: float = ANSWER_DEADLINE_S) -> None:
        """Wait until libvirt answers and knows its QEMU; raises NoAnswer at the deadline.

        The probe of QEMU's capabilities is what makes the first guest start of a host slow, and a
        host that ran for a while has it behind itself.
        """
        processes.until(
            self.answers, deadline_s, f"libvirt answers on {self.plan.name}", poll_s=0.1
        )
        try:
            # Read-only connections may not ask for this.
            run(
                *("virsh", "-q", "-c", self.plan.uri, "domcapabilities", "--virttype", "qemu"),
                timeout_s=deadline_s,
            )
        except Unavailable as error:
            raise NoAnswer("LAB_NO_QEMU", f"{self.plan.name}: {error.detail}") from error

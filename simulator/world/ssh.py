"""The sshd of each host, which does one thing: restart libvirtd. It lives as long as the kernel.

Invariants  A restart that was begun goes on when its caller is gone. Guests run on, whatever
            becomes of it.
"""

from collections.abc import Callable

from domain.errors import EngineError, NoAnswer, Refused
from domain.ssh_access import SshAccess
from simulator.world.centre import DataCentre
from simulator.world.host import Libvirtd, Sshd, VirtualHost
from simulator.world.hypervisor import FIRST_MACHINE, Door
from simulator.world.latency import Call
from simulator.world.network import Net
from simulator.world.wire import Line


class VirtualSsh:
    """Implements `Ssh`, as seen from one machine of the engine."""

    def __init__(self, centre: DataCentre, machine: str = FIRST_MACHINE) -> None:
        self._centre = centre
        self._machine = machine

    async def restart_libvirtd(self, access: SshAccess, deadline_s: float) -> None:
        """Have the host restart its libvirtd."""
        await self._centre.ahead_of(Call.SSH_RESTART)
        host = self._centre.hosts.get(access.address)
        if host is None:
            raise NoAnswer("SSH_NO_ANSWER", f"{access.address} could not be reached")
        network = self._centre.networks[Net.MANAGEMENT]
        line = Line(self._centre, network, self._machine, host.name, Door(host), _lost_by(host))
        await line.call(Call.SSH_RESTART, deadline_s, lambda: self._restart(host))

    def _restart(self, host: VirtualHost) -> None:
        if host.sshd is Sshd.DOWN:
            raise NoAnswer("SSH_NO_ANSWER", f"{host.name} refused the connection")
        self._centre.happenings.tell("ssh.restart", host=host.name, machine=self._machine)
        if host.sshd is Sshd.FAILING:
            detail = f"the command at {host.name} ended with 1"
            raise Refused("SSH_COMMAND_FAILED", detail, next_step="try it by hand")
        host.set_libvirtd(Libvirtd.DOWN)
        latency, boot = self._centre.latency, host.boot

        def ready() -> None:
            if host.up and host.boot == boot and host.libvirtd is Libvirtd.DOWN:
                host.set_libvirtd(Libvirtd.ALIVE)

        if latency is None:
            ready()
        else:
            begins_s = latency.libvirtd_start_s() * host.slowness
            self._centre.happenings.later(begins_s, ready)


def _lost_by(host: VirtualHost) -> Callable[[bool], EngineError]:
    def lost(_unknown: bool) -> EngineError:
        return NoAnswer("SSH_NO_ANSWER", f"{host.name} did not answer", host=host.name)

    return lost

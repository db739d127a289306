"""The SSH of a fleet's hosts, over the fleet's socket."""

from pathlib import Path

from activities.soft_steps import Ssh
from domain.errors import NoAnswer, OutcomeUnknown
from domain.ssh_access import SshAccess
from simulator.fleet.drivers import connected


class FarSsh:
    """Implements `Ssh`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def restart_libvirtd(self, access: SshAccess, deadline_s: float) -> None:
        """Have a host restart its libvirtd; NoAnswer when that is not known, as with real SSH."""
        try:
            async with connected(self._path) as line:
                await line.ask(deadline_s, Ssh.restart_libvirtd, access, deadline_s)
        except OutcomeUnknown as error:
            raise NoAnswer("SSH_NO_ANSWER", error.detail, address=access.address) from None

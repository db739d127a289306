"""A real libvirtd over TCP (test driver, private files) that is frozen, killed and restarted."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain.errors import NoAnswer, OutcomeUnknown
from domain.inventory import GuestSpec
from drivers.libvirt_hypervisor import LibvirtHypervisor
from drivers.libvirt_lane import Ticket
from drivers.libvirt_sockets import sockets_to

pytestmark = pytest.mark.lab

Until = Callable[[Callable[[], object]], Awaitable[None]]
LONG_S = 20.0
SHORT_S = 0.5
INIT = """
set -e
mount -t tmpfs none /run && mount -t tmpfs none /var/lib/libvirt
exec libvirtd --listen -f {config}
"""
CONFIG = """
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "127.0.0.1"
tcp_port = "{port}"
host_uuid = "6f6a52d8-8a3c-4d26-9f0a-5a0f6d1d0001"
"""


@dataclass
class Daemon:
    """libvirtd in a mount namespace of its own."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        return f"test+tcp://127.0.0.1:{self.port}/default"

    async def start(self) -> None:
        config = self.folder / "libvirtd.conf"
        config.write_text(CONFIG.format(port=self.port))
        (self.folder / "drivers").mkdir(exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "unshare", "-m", "--propagation", "private"),
            *("sh", "-c", INIT.format(config=config)),
            env={**os.environ, "LIBVIRT_DRIVER_DIR": str(self.folder / "drivers")},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(LONG_S):
            while not self._answers():
                assert self.process.returncode is None, "libvirtd ended at its start"
                await asyncio.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
async def daemon(tmp_path: Path, needs: Callable[[bool, str], None]) -> AsyncIterator[Daemon]:
    needs(os.geteuid() == 0, "root")
    needs(shutil.which("libvirtd", path="/usr/sbin") is not None, "libvirt-daemon")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    made = Daemon(tmp_path, port)
    await made.start()
    yield made
    await made.kill()


async def test_a_frozen_daemon_is_no_answer_and_answers_again_when_it_thaws(
    daemon: Daemon, hypervisor: LibvirtHypervisor, until: Until
) -> None:
    await hypervisor.poll(daemon.uri, LONG_S)
    daemon.send(signal.SIGSTOP)
    for _ in range(6):
        with pytest.raises(NoAnswer):
            await hypervisor.poll(daemon.uri, SHORT_S)
    await until(lambda: hypervisor.threads() == 0)
    daemon.send(signal.SIGCONT)
    assert (await hypervisor.poll(daemon.uri, LONG_S)).cpus == 16


async def test_a_restarted_daemon_is_polled_on_without_a_miss(
    daemon: Daemon, hypervisor: LibvirtHypervisor, until: Until
) -> None:
    await hypervisor.poll(daemon.uri, LONG_S)
    await daemon.kill()
    with pytest.raises(NoAnswer) as refused:
        await hypervisor.poll(daemon.uri, LONG_S)
    assert refused.value.code == "HOST_PORT_REFUSED"
    await daemon.start()
    await hypervisor.poll(daemon.uri, LONG_S)
    await daemon.kill()
    await daemon.start()
    await hypervisor.poll(daemon.uri, LONG_S)
    await until(lambda: hypervisor.threads() == 1)


async def test_a_session_never_reconnects(
    daemon: Daemon, hypervisor: LibvirtHypervisor, spec: GuestSpec
) -> None:
    async with hypervisor.session(daemon.uri, LONG_S) as session:
        await session.define(spec, 1)
        await daemon.kill()
        await daemon.start()
        for _ in range(2):
            with pytest.raises(NoAnswer):
                await session.create(spec.vm_id, 1)
    async with hypervisor.session(daemon.uri, LONG_S) as session:
        assert await session.lookup(spec.vm_id) is None


async def test_a_change_that_is_sent_into_a_freeze_has_an_unknown_outcome(
    daemon: Daemon, hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch, spec: GuestSpec
) -> None:
    # The daemon freezes when the driver says that it is sending, which is after its last look.
    sending = Ticket.sending

    def freeze(ticket: Ticket) -> None:
        sending(ticket)
        daemon.send(signal.SIGSTOP)

    async with hypervisor.session(daemon.uri, 2.0) as session:
        await session.define(spec, 1)
        monkeypatch.setattr(Ticket, "sending", freeze)
        with pytest.raises(OutcomeUnknown):
            await session.create(spec.vm_id, 1)
        with pytest.raises(NoAnswer):
            await session.lookup(spec.vm_id)
    daemon.send(signal.SIGCONT)


async def test_a_connection_that_nobody_answers_is_ended_by_keep_alive_before_its_deadline(
    daemon: Daemon, hypervisor: LibvirtHypervisor, until: Until
) -> None:
    async with hypervisor.session(daemon.uri, 60.0) as session:
        daemon.send(signal.SIGSTOP)
        with pytest.raises(NoAnswer, match="keepalive"):
            await session.domains()
    daemon.send(signal.SIGCONT)
    # The lane's thread closes it when the call that was in it has come back.
    await until(lambda: sockets_to([("127.0.0.1", daemon.port)]) == frozenset())

"""Knocks at doors of every kind: only a door that was tried and gave nothing back is silent."""

import asyncio
import resource
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from domain.errors import Invalid, NoAnswer
from domain.readings import Knock
from drivers.libvirt_hypervisor import LibvirtHypervisor
from drivers.libvirt_lane import HUNG_PER_HOST_MAX
from drivers.libvirt_sockets import knock

pytestmark = pytest.mark.unit

Until = Callable[[Callable[[], object]], Awaitable[None]]
LOOPBACK = "127.0.0.1"
SHORT_S = 0.2
LONG_S = 20.0
TURNS = 5


def uri(host: str, port: int, scheme: str = "qemu+tcp") -> str:
    return f"{scheme}://{host}:{port}/system"


@contextmanager
def full_door() -> Iterator[socket.socket]:
    """A listener whose queue is full, so that the kernel drops each further connect unanswered."""
    with (
        socket.create_server((LOOPBACK, 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        yield server


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says a word, like a frozen libvirtd."""
    with socket.create_server((LOOPBACK, 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port from which nothing comes back."""
    with full_door() as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["qemu+tcp", "qemu+tls", "qemu+ssh"])
async def test_a_port_that_takes_the_connection_and_says_nothing_is_a_sign_of_life(
    hypervisor: LibvirtHypervisor, mute_port: int, scheme: str
) -> None:
    assert await hypervisor.knock(uri(LOOPBACK, mute_port, scheme), LONG_S) is Knock.OPEN
    assert hypervisor.threads() == 0


async def test_a_refused_port_is_a_sign_of_life(
    hypervisor: LibvirtHypervisor, closed_port: int
) -> None:
    assert await hypervisor.knock(uri(LOOPBACK, closed_port), LONG_S) is Knock.REFUSED


async def test_a_port_from_which_nothing_comes_back_is_silent(
    hypervisor: LibvirtHypervisor, silent_port: int
) -> None:
    assert await hypervisor.knock(uri(LOOPBACK, silent_port), SHORT_S) is Knock.SILENT


async def test_a_driver_inside_this_process_answers(
    hypervisor: LibvirtHypervisor, host_uri: str
) -> None:
    assert await hypervisor.knock(host_uri, SHORT_S) is Knock.ANSWERS


async def test_a_network_without_a_route_was_not_asked_and_is_no_silence(
    hypervisor: LibvirtHypervisor,
) -> None:
    # The kernel refuses to connect to the broadcast address as it does without a route.
    with pytest.raises(NoAnswer, match=r"KNOCK_NOT_POSSIBLE.*unreachable") as untried:
        await hypervisor.knock(uri("255.255.255.255", 16509), LONG_S)
    assert untried.value.next_step


async def test_a_process_without_a_descriptor_left_hears_no_silence(
    hypervisor: LibvirtHypervisor, silent_port: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(NoAnswer) as untried:
            await hypervisor.knock(uri(LOOPBACK, silent_port), SHORT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert untried.value.code == "KNOCK_NOT_POSSIBLE"


async def test_a_name_that_nobody_knows_is_no_silence(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_args: Any, **_more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NoAnswer, match=r"KNOCK_NOT_POSSIBLE.*not known"):
        await hypervisor.knock(uri("h1.example", 16509), LONG_S)


async def test_a_name_service_that_hangs_is_no_silence_however_often_it_is_asked(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()

    def hangs(*_args: Any, **_more: Any) -> Any:
        back.wait(LONG_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    try:
        for _ in range(HUNG_PER_HOST_MAX + 1):
            with pytest.raises(NoAnswer) as untried:
                await hypervisor.knock(uri("h1.example", 16509), SHORT_S)
            assert untried.value.code == "KNOCK_NOT_POSSIBLE"
    finally:
        back.set()


async def test_a_name_is_looked_up_before_it_is_knocked_at(
    hypervisor: LibvirtHypervisor, mute_port: int
) -> None:
    assert await hypervisor.knock(uri("localhost", mute_port), LONG_S) is Knock.OPEN


async def test_hung_calls_and_connections_in_the_making_do_not_stand_in_the_way_of_a_knock(
    hypervisor: LibvirtHypervisor, mute_port: int, until: Until
) -> None:
    async def never() -> None:
        async with hypervisor.session(uri(LOOPBACK, mute_port), 60.0):
            pass

    waiting = [asyncio.create_task(never()) for _ in range(HUNG_PER_HOST_MAX + 1)]
    await until(lambda: hypervisor.threads() > 0)
    assert await hypervisor.knock(uri(LOOPBACK, mute_port), LONG_S) is Knock.OPEN
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await until(lambda: hypervisor.threads() == 0)


async def test_one_address_that_reacts_outweighs_the_silent_ones(
    silent_port: int, mute_port: int, closed_port: int
) -> None:
    silent, open_, closed = ((LOOPBACK, port) for port in (silent_port, mute_port, closed_port))
    assert await knock("h1", [silent, closed, open_], LONG_S) is Knock.OPEN
    assert await knock("h1", [silent, closed], SHORT_S) is Knock.REFUSED
    assert await knock("h1", [("255.255.255.255", 1), silent], SHORT_S) is Knock.SILENT


async def test_an_answer_that_came_while_this_process_was_held_up_is_no_silence() -> None:
    with full_door() as server:
        knocking = asyncio.create_task(knock("h1", [server.getsockname()], SHORT_S))
        for _ in range(TURNS):  # Turns of the loop until the connect is on its way.
            await asyncio.sleep(0)
        _take_two(server)
        assert await knocking is Knock.OPEN


def _take_two(server: socket.socket) -> None:
    """Hold the whole process up, past the deadline of the knock, until its connect is taken.

    The first taken is who filled the queue; the kernel tries the dropped connect again after 1 s.
    """
    server.settimeout(LONG_S)
    for _ in range(2):
        server.accept()[0].close()


async def test_a_uri_that_is_not_supported_is_refused(hypervisor: LibvirtHypervisor) -> None:
    with pytest.raises(Invalid, match="URI_SCHEME_UNSUPPORTED"):
        await hypervisor.knock("http://h1/", SHORT_S)

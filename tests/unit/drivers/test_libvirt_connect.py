"""Openings that nobody answers: they end in time and leave no thread behind."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from domain.errors import NoAnswer
from drivers.libvirt_connect import Connector
from drivers.libvirt_hypervisor import LibvirtHypervisor
from drivers.libvirt_lane import HUNG_PER_HOST_MAX, Threads
from drivers.libvirt_sockets import hang_up, sockets_to

pytestmark = pytest.mark.unit

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says a word, like a frozen libvirtd."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


async def test_a_host_that_never_answers_costs_no_thread_however_often_it_is_polled(
    hypervisor: LibvirtHypervisor, mute_port: int, until: Until
) -> None:
    uri = f"qemu+tcp://127.0.0.1:{mute_port}/system"
    for _ in range(HUNG_PER_HOST_MAX + 2):
        with pytest.raises(NoAnswer) as silent:
            await hypervisor.poll(uri, 0.2)
        assert silent.value.code == "HYPERVISOR_NO_ANSWER"
        await until(lambda: hypervisor.threads() == 0)
    assert hypervisor.hung_threads() == {}


async def test_sessions_with_a_mute_host_do_not_delay_another_host(
    hypervisor: LibvirtHypervisor, mute_port: int, host_uri: str
) -> None:
    async def never() -> None:
        async with hypervisor.session(f"qemu+tcp://127.0.0.1:{mute_port}/system", 60.0):
            pass

    waiting = [asyncio.create_task(never()) for _ in range(3)]
    reading = await hypervisor.poll(host_uri, 20.0)
    assert reading.cpus == 16
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)


async def test_a_refused_port_is_told_apart_from_silence(hypervisor: LibvirtHypervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoAnswer) as refused:
        await hypervisor.poll(f"qemu+tcp://127.0.0.1:{port}/system", 20.0)
    assert refused.value.code == "HOST_PORT_REFUSED"


async def test_an_opening_that_was_cancelled_leaves_no_thread(
    hypervisor: LibvirtHypervisor, mute_port: int, until: Until
) -> None:
    poll = asyncio.create_task(hypervisor.poll(f"qemu+tcp://127.0.0.1:{mute_port}/system", 60.0))
    await until(lambda: sockets_to([("127.0.0.1", mute_port)]))
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    await until(lambda: hypervisor.threads() == 0)


def test_hanging_up_ends_the_named_socket_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ("127.0.0.1", server.getsockname()[1])
        with socket.create_connection(address) as kept:
            before = sockets_to([address])
            with socket.create_connection(address) as doomed:
                hang_up(sockets_to([address]) - before)
                assert doomed.recv(1) == b""
                kept.setblocking(False)
                with pytest.raises(BlockingIOError):
                    kept.recv(1)


async def test_the_event_loop_of_libvirt_runs_once_for_all_hypervisors() -> None:

    Connector(Threads())
    Connector(Threads())
    assert [t.name for t in threading.enumerate()].count("libvirt events") == 1

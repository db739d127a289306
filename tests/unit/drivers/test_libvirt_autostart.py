"""What a host starts by itself is told by its polls, and no poll suffers for the question."""

import threading
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import libvirt
import pytest

from domain.inventory import GuestSpec
from drivers import libvirt_autostart, libvirt_domains
from drivers.libvirt_hypervisor import LibvirtHypervisor

pytestmark = pytest.mark.unit

DEADLINE_S = 20.0
SHARED = "test:///default"
"""Connections of one process share this host while one is open."""


@pytest.fixture
async def by_hand(hypervisor: LibvirtHypervisor) -> AsyncIterator[libvirt.virConnect]:
    """What a person does with virsh; the polls close first."""
    opened = libvirt.open(SHARED)
    yield opened
    await hypervisor.close()
    opened.close()


def start_at_boot(by_hand: libvirt.virConnect, name: str, wanted: int = 1) -> None:
    by_hand.lookupByName(name).setAutostart(wanted)


async def told(hypervisor: LibvirtHypervisor) -> tuple[str, ...] | None:
    """What the poll after the next question tells."""
    await hypervisor.poll(SHARED, DEADLINE_S)
    return (await hypervisor.poll(SHARED, DEADLINE_S)).autostart


async def test_polls_name_our_domains_that_start_at_boot_and_nobody_elses(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 1)
        assert await told(hypervisor) == ()
        start_at_boot(by_hand, "test")
        assert await told(hypervisor) == ()
        start_at_boot(by_hand, spec.name)
        assert await told(hypervisor) == (spec.name,)
        start_at_boot(by_hand, spec.name, 0)
        assert await told(hypervisor) == ()
        await session.undefine(spec.vm_id, 1)
    start_at_boot(by_hand, "test", 0)


async def test_marks_of_the_same_domains_are_read_again_only_after_a_while(
    hypervisor: LibvirtHypervisor,
    by_hand: libvirt.virConnect,
    spec: GuestSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[UUID] = []
    real = libvirt_domains.generation_of

    def counted(domain: libvirt.virDomain, where: int) -> int | None:
        asked.append(UUID(bytes=domain.UUID()))
        return real(domain, where)

    monkeypatch.setattr(libvirt_autostart, "generation_of", counted)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 1)
        start_at_boot(by_hand, spec.name)
        for _ in range(3):
            assert await told(hypervisor) == (spec.name,)
        assert asked == [spec.vm_id]
        monkeypatch.setattr(libvirt_autostart, "READ_AGAIN_S", 0.0)
        await told(hypervisor)
        assert len(asked) > 1
        start_at_boot(by_hand, spec.name, 0)
        await session.undefine(spec.vm_id, 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Each question is noted, and hangs until the test has ended."""
    thaw, noted = threading.Event(), list[int]()

    def hangs(*_: object) -> None:
        noted.append(1)
        thaw.wait(60)

    monkeypatch.setattr(libvirt_autostart, "_read", hangs)
    monkeypatch.setattr(libvirt_autostart, "ASK_S", 0.05)
    try:
        yield noted
    finally:
        thaw.set()


async def test_a_question_that_hangs_costs_one_connection_and_no_poll(
    hypervisor: LibvirtHypervisor, host_uri: str, asked: list[int]
) -> None:
    for _ in range(8):  # twice as many as may hang before a host is asked nothing more
        reading = await hypervisor.poll(host_uri, DEADLINE_S)
        assert (reading.cpus, reading.autostart) == (16, None)
    assert len(asked) == 1
    assert list(hypervisor.hung_threads().values()) == [1]


async def test_a_question_is_not_asked_again_while_the_last_one_hangs(
    hypervisor: LibvirtHypervisor,
    host_uri: str,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libvirt_autostart, "AGAIN_S", 0.0)
    for _ in range(8):
        assert (await hypervisor.poll(host_uri, DEADLINE_S)).cpus == 16
    assert len(asked) == 1


@pytest.mark.parametrize("error", [libvirt.libvirtError("unsupported flag"), RuntimeError("oops")])
async def test_a_question_that_fails_is_not_known_and_keeps_the_connection(
    hypervisor: LibvirtHypervisor,
    host_uri: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fails(*_: object) -> None:
        asked.append(1)
        raise error

    monkeypatch.setattr(libvirt_autostart, "_read", fails)
    for _ in range(4):
        assert (await hypervisor.poll(host_uri, DEADLINE_S)).autostart is None
    assert (len(asked), hypervisor.threads()) == (1, 1)

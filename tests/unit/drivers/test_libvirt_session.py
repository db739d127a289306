"""What a session does on libvirt's test driver: generations, repeats, foreign domains."""

from threading import Event
from uuid import UUID, uuid4

import libvirt
import libvirt_qemu
import pytest

from domain.errors import Conflict, Invalid, NoAnswer, Superseded
from domain.inventory import GuestSpec
from domain.readings import AgentState, DomainState
from drivers import libvirt_session
from drivers.libvirt_hypervisor import LibvirtHypervisor

pytestmark = pytest.mark.unit

DEADLINE_S = 20.0
SHORT_S = 1.0


async def test_a_domain_is_defined_started_stopped_and_forgotten_and_each_step_may_be_repeated(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        for _ in range(2):
            await session.define(spec, 3)
        defined = await session.lookup(spec.vm_id)
        for _ in range(2):
            await session.create(spec.vm_id, 3)
        await session.define(spec, 3)
        running = await session.lookup(spec.vm_id)
        for _ in range(2):
            await session.destroy(spec.vm_id, 3)
        ended = await session.lookup(spec.vm_id)
        for _ in range(2):
            await session.undefine(spec.vm_id, 3)
        assert await session.lookup(spec.vm_id) is None
    assert defined
    assert running
    assert ended
    assert (defined.state, defined.generation) == (DomainState.SHUTOFF, 3)
    assert (running.state, running.generation, running.name) == (
        DomainState.RUNNING,
        3,
        spec.name,
    )
    assert ended.state is DomainState.SHUTOFF


async def test_a_shutdown_of_a_stopped_or_unknown_domain_is_success(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        await session.shutdown(uuid4(), 1)
        await session.destroy(uuid4(), 1)
        await session.define(spec, 1)
        await session.create(spec.vm_id, 1)
        for _ in range(2):
            await session.shutdown(spec.vm_id, 1)
        found = await session.lookup(spec.vm_id)
    assert found
    assert not found.alive


async def test_no_agent_answers_where_there_is_none_and_one_that_does_is_heard(
    hypervisor: LibvirtHypervisor,
    host_uri: str,
    spec: GuestSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinged: list[str] = []

    def answered(domain: libvirt.virDomain, command: str, timeout_s: int, flags: int) -> str:
        pinged.append(f"{domain.name()} {command} {timeout_s} {flags}")
        return '{"return":{}}'

    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        assert await session.ask_agent(spec.vm_id) is AgentState.ABSENT, "no such domain"
        await session.define(spec.model_copy(update={"agent": True}), 1)
        await session.create(spec.vm_id, 1)
        assert await session.ask_agent(spec.vm_id) is AgentState.ABSENT, (
            "the test driver has no agents"
        )
        monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", answered)
        assert await session.ask_agent(spec.vm_id) is AgentState.ANSWERS
    assert pinged == [f'{spec.name} {{"execute": "guest-ping"}} 2 0']


async def test_a_hung_agent_has_time_of_its_own_beside_that_of_its_host(
    hypervisor: LibvirtHypervisor,
    host_uri: str,
    spec: GuestSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unheard(*_: object) -> AgentState:
        waited.wait(1.5 * SHORT_S)  # as long as libvirtd does, only shorter
        return AgentState.SILENT

    waited = Event()
    monkeypatch.setattr(libvirt_session, "ask_agent", unheard)
    async with hypervisor.session(host_uri, SHORT_S) as session:
        assert await session.ask_agent(spec.vm_id) is AgentState.SILENT
        assert await session.lookup(spec.vm_id) is None, "the session is not given up for it"


@pytest.mark.parametrize(
    "code",
    [
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    ],
)
async def test_a_domain_that_ended_or_is_only_arriving_is_not_moved_away(
    hypervisor: LibvirtHypervisor,
    host_uri: str,
    spec: GuestSpec,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    def refused(_domain: libvirt.virDomain) -> None:
        error = libvirt.libvirtError("migration statistics are available only on the source host")
        error.err = (code, libvirt.VIR_FROM_QEMU, "", 2, "", None, None, 0, 0)
        raise error

    monkeypatch.setattr(libvirt.virDomain, "jobStats", refused)
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        await session.define(spec, 1)
        await session.create(spec.vm_id, 1)
        assert await session.migration(spec.vm_id) is None


async def test_an_older_generation_changes_nothing(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        await session.define(spec, 5)
        await session.create(spec.vm_id, 5)
        for change in (
            session.define(spec, 4),
            session.create(spec.vm_id, 4),
            session.shutdown(spec.vm_id, 4),
            session.destroy(spec.vm_id, 4),
            session.undefine(spec.vm_id, 4),
        ):
            with pytest.raises(Superseded) as refused:
                await change
            assert refused.value.code == "GENERATION_STALE"
        found = await session.lookup(spec.vm_id)
    assert found
    assert (found.state, found.generation) == (DomainState.RUNNING, 5)


async def test_a_running_older_run_is_neither_replaced_nor_taken_for_the_new_one(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        await session.define(spec, 5)
        await session.create(spec.vm_id, 5)
        for change in (session.define(spec, 6), session.create(spec.vm_id, 6)):
            with pytest.raises(Conflict) as refused:
                await change
            assert refused.value.code == "DOMAIN_RUNNING_OLDER"
        with pytest.raises(Conflict, match="DOMAIN_RUNNING"):
            await session.undefine(spec.vm_id, 6)
        await session.destroy(spec.vm_id, 6)
        await session.define(spec, 6)
        await session.create(spec.vm_id, 6)
        found = await session.lookup(spec.vm_id)
    assert found
    assert found.generation == 6


async def test_only_what_was_defined_with_the_same_generation_is_started(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        with pytest.raises(Conflict, match="DOMAIN_NOT_DEFINED"):
            await session.create(spec.vm_id, 1)
        await session.define(spec, 1)
        with pytest.raises(Conflict, match="DOMAIN_DEFINED_OLDER"):
            await session.create(spec.vm_id, 2)
        found = await session.lookup(spec.vm_id)
    assert found
    assert not found.alive


async def test_a_foreign_domain_is_listed_and_never_touched(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec, foreign_vm: UUID
) -> None:
    theirs = spec.model_copy(update={"vm_id": foreign_vm})
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        for change in (
            session.define(theirs, 9),
            session.create(foreign_vm, 9),
            session.shutdown(foreign_vm, 9),
            session.destroy(foreign_vm, 9),
            session.undefine(foreign_vm, 9),
        ):
            with pytest.raises(Conflict) as refused:
                await change
            assert refused.value.code == "DOMAIN_FOREIGN"
        (found,) = await session.domains()
    assert (found.vm_id, found.generation, found.alive) == (foreign_vm, None, True)


async def test_autostart_is_reported_and_does_not_survive_a_redefinition(
    hypervisor: LibvirtHypervisor, spec: GuestSpec
) -> None:
    uri = "test:///default"  # Connections of one process share this host while one is open.
    async with hypervisor.session(uri, DEADLINE_S) as session:
        await session.define(spec, 1)
        by_hand = libvirt.open(uri)
        by_hand.lookupByUUIDString(str(spec.vm_id)).setAutostart(1)
        listed = {domain.vm_id: domain.autostart for domain in await session.domains()}
        found = await session.lookup(spec.vm_id)
        await session.define(spec, 2)
        redefined = await session.lookup(spec.vm_id)
        await session.undefine(spec.vm_id, 2)
        by_hand.close()
    assert found
    assert redefined
    assert (listed[spec.vm_id], found.autostart, redefined.autostart) == (True, True, False)
    assert list(listed.values()).count(True) == 1


async def test_libvirts_own_refusal_comes_with_its_words_and_code(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    namesake = spec.model_copy(update={"name": "foreign"})
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        with pytest.raises(Conflict) as refused:
            await session.define(namesake, 1)
        assert refused.value.code == "HYPERVISOR_REFUSED"
        assert "already exists" in refused.value.detail
        assert refused.value.context["libvirt"] == 9
        assert len(await session.domains()) == 1


async def test_the_newest_boot_mark_wins_and_an_older_one_is_refused(
    hypervisor: LibvirtHypervisor, host_uri: str
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        assert await session.boot_mark() is None
        for epoch in (9, 10, 10):
            await session.set_boot_mark(epoch)
        with pytest.raises(Superseded, match="EPOCH_STALE"):
            await session.set_boot_mark(9)
        assert await session.boot_mark() == 10


async def test_a_poll_reads_running_domains_and_the_node(
    hypervisor: LibvirtHypervisor, host_uri: str, foreign_vm: UUID
) -> None:
    await hypervisor.poll(host_uri, DEADLINE_S)
    reading = await hypervisor.poll(host_uri, DEADLINE_S)
    assert [(guest.vm_id, guest.state) for guest in reading.guests] == [
        (foreign_vm, DomainState.RUNNING)
    ]
    assert (reading.memory_total_mib, reading.cpus, reading.boot_mark) == (3072, 16, None)
    assert hypervisor.threads() == 1


async def test_a_closed_session_answers_no_more(
    hypervisor: LibvirtHypervisor, host_uri: str, spec: GuestSpec
) -> None:
    async with hypervisor.session(host_uri, DEADLINE_S) as session:
        await session.define(spec, 1)
    with pytest.raises(NoAnswer):
        await session.create(spec.vm_id, 1)


async def test_a_uri_of_another_kind_is_invalid_for_sessions_and_polls(
    hypervisor: LibvirtHypervisor,
) -> None:
    with pytest.raises(Invalid):
        await hypervisor.poll("lxc:///system", DEADLINE_S)
    with pytest.raises(Invalid):
        async with hypervisor.session("lxc:///system", DEADLINE_S):
            pass

"""Foreign guests on libvirt's test driver: listed, described, marked, unmarked, never touched."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import libvirt
import pytest

from domain.errors import Conflict, NotFound, OutcomeUnknown
from domain.foreign import ForeignGuest
from domain.inventory import GuestSpec
from domain.readings import DomainState
from drivers.domain_xml import NAMESPACE
from drivers.libvirt_hypervisor import LibvirtHypervisor
from tests.import_scene import spec_of

pytestmark = pytest.mark.unit

DEADLINE_S = 20.0
SHARED = "test:///default"
"""Connections of one process share this host while one is open."""

DOWN = UUID("4b4d1f1e-0000-4000-8000-00000000d0d0")
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


@pytest.fixture
def by_hand() -> Iterator[libvirt.virConnect]:
    """A person's own connection to SHARED, where `test` runs and `down` is only defined."""
    made = libvirt.open(SHARED)
    _clean(made)
    made.defineXML(
        f"<domain type='test'><name>down</name><uuid>{DOWN}</uuid><memory>65536</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    yield made
    made.close()


def _clean(connection: libvirt.virConnect) -> None:
    """An earlier test's world lives on while any object of it has not been collected."""
    for domain in connection.listAllDomains():
        for snapshot in domain.listAllSnapshots():
            snapshot.delete()
        if domain.name() == "test":
            domain.setMetadata(2, None, None, NAMESPACE, LIVE | CONFIG)
            continue
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


@pytest.fixture
def running(by_hand: libvirt.virConnect) -> libvirt.virDomain:
    """The guest that runs."""
    return by_hand.lookupByName("test")


def plain(domain: libvirt.virDomain) -> tuple[str, str]:
    """What runs and what is defined, without the metadata."""

    def without(flags: int) -> str:
        xml = str(domain.XMLDesc(flags)).replace("  <metadata/>\n", "")
        before, _, rest = xml.partition("  <metadata>\n")
        return before + rest.partition("  </metadata>\n")[2] if rest else xml

    return without(0), without(libvirt.VIR_DOMAIN_XML_INACTIVE)


async def test_foreign_guests_are_listed_with_what_they_are_and_ours_are_not(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 1)
        found = await session.list_foreign()
        ours = await session.describe_foreign(spec.vm_id)
        await session.undefine(spec.vm_id, 1)
    assert [(g.name, g.state, g.memory_mib, g.generation) for g in found] == [
        ("down", DomainState.SHUTOFF, 64, None),
        ("test", DomainState.RUNNING, 8192, None),
    ]
    assert all(guest.persistent and not guest.autostart for guest in found)
    assert ours
    assert (ours.generation, ours.claim, ours.unsupported, ours.lost) == (1, None, (), ())
    assert spec_of(ours, spec.name) == spec


async def test_a_guest_is_found_by_name_and_by_id_and_an_unknown_one_is_none(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        guest = await session.describe_foreign("down")
        assert isinstance(guest, ForeignGuest)
        assert guest == await session.describe_foreign(DOWN)
        assert await session.describe_foreign("nobody") is None
        assert await session.describe_foreign(uuid4()) is None


async def test_marking_writes_metadata_where_it_runs_and_where_it_is_defined_and_nothing_else(
    hypervisor: LibvirtHypervisor, running: libvirt.virDomain
) -> None:
    guest_id, claim, before = UUID(running.UUIDString()), uuid4(), plain(running)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        for _ in range(2):
            await session.adopt(guest_id, 1, claim)
        found = await session.lookup(guest_id)
        described = await session.describe_foreign(guest_id)
        assert "test" not in [guest.name for guest in await session.list_foreign()]
        marks = [running.metadata(2, NAMESPACE, where) for where in (LIVE, CONFIG)]
        assert plain(running) == before
        for _ in range(2):
            await session.disown(guest_id, claim)
        assert "test" in [guest.name for guest in await session.list_foreign()]
    assert found
    assert described
    assert (found.generation, found.alive, described.claim) == (1, True, claim)
    assert marks[0] == marks[1]
    assert plain(running) == before


async def test_a_marked_guest_is_ours_to_stop_and_to_define_under_another_name(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.adopt(DOWN, 1, uuid4())
        guest = await session.describe_foreign(DOWN)
        assert guest
        for _ in range(2):
            await session.define(spec_of(guest, "renamed"), 2)
        await session.create(DOWN, 2)
        found = await session.lookup(DOWN)
        await session.destroy(DOWN, 2)
        await session.undefine(DOWN, 2)
    assert found
    assert (found.name, found.generation, found.alive) == ("renamed", 2, True)


async def test_the_mark_of_another_import_or_engine_is_neither_replaced_nor_removed(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    claim = uuid4()
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 4)
        await session.adopt(DOWN, 1, claim)
        for guest_id, generation, by in ((DOWN, 1, str(claim)), (spec.vm_id, 4, "another engine")):
            with pytest.raises(Conflict) as claimed:
                await session.adopt(guest_id, 1, uuid4())
            assert claimed.value.code == "GUEST_CLAIMED"
            assert f"carries generation {generation}" in claimed.value.detail
            assert by in claimed.value.detail
            await session.disown(guest_id, uuid4())
            found = await session.lookup(guest_id)
            assert found
            assert found.generation == generation
        await session.undefine(spec.vm_id, 4)


async def test_a_guest_that_is_unknown_or_starts_with_its_host_is_not_marked(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect
) -> None:
    by_hand.lookupByName("down").setAutostart(1)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        with pytest.raises(Conflict, match="GUEST_AUTOSTART"):
            await session.adopt(DOWN, 1, uuid4())
        with pytest.raises(NotFound, match="GUEST_NOT_FOUND"):
            await session.adopt(uuid4(), 1, uuid4())
        await session.disown(uuid4(), uuid4())
        found = await session.describe_foreign(DOWN)
    assert found
    assert (found.autostart, found.generation) == (True, None)


async def test_a_guest_that_starts_while_it_is_marked_is_an_unknown_outcome_and_then_completed(
    hypervisor: LibvirtHypervisor,
    by_hand: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It starts when the mark is on its way, which is after the driver's last look.
    claim, down = uuid4(), by_hand.lookupByName("down")
    written = libvirt.virDomain.setMetadata

    def starts(domain: libvirt.virDomain, *mark: object) -> int:
        if not down.isActive():
            down.create()
        return int(written(domain, *mark))

    monkeypatch.setattr(libvirt.virDomain, "setMetadata", starts)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        with pytest.raises(OutcomeUnknown, match="READ_BACK_DIFFERS"):
            await session.adopt(DOWN, 1, claim)
        await session.adopt(DOWN, 1, claim)
        found = await session.lookup(DOWN)
    assert found
    assert (found.alive, found.generation) == (True, 1)


async def test_snapshots_and_saved_memory_stand_in_the_way_of_an_import(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, running: libvirt.virDomain
) -> None:
    running.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
    down = by_hand.lookupByName("down")
    down.create()
    down.managedSave()
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        found = {guest.name: guest.unsupported for guest in await session.list_foreign()}
    assert "snapshots (1)" in found["test"]
    assert "a saved memory image" in found["down"]


async def test_what_is_defined_for_the_next_boot_otherwise_than_it_runs_is_a_loss(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect
) -> None:
    down = by_hand.lookupByName("down")
    down.create()
    down.setMemoryFlags(32768, CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        found = await session.describe_foreign(DOWN)
    assert found
    assert "changes to its definition that wait for its next boot" in found.lost
    assert found.memory_mib == 64


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<!DOCTYPE d><d/>", "document type"),
        ("<d>\udc80</d>", "its definition cannot be read: "),
        (f"<domain><uuid>{DOWN}</uuid><vcpu>{'9' * 5000}</vcpu></domain>", "CPUs"),
    ],
    ids=["document type", "no text", "5,000 digits"],
)
async def test_a_definition_that_cannot_be_read_hides_no_other_guest(
    hypervisor: LibvirtHypervisor,
    by_hand: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    xml: str,
    reason: str,
) -> None:
    described = libvirt.virDomain.XMLDesc

    def poisoned(domain: libvirt.virDomain, flags: int = 0) -> str:
        return xml if domain.name() == "down" else str(described(domain, flags))

    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", poisoned)
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        down, test = await session.list_foreign()
    assert {down.guest_id, test.guest_id} > {DOWN}
    assert any(reason in why for why in (*down.unsupported, *test.unsupported))

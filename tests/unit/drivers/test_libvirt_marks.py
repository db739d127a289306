"""Marks that are renewed on libvirt's test driver: where it runs, where it is defined, once."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import libvirt
import pytest

from domain.errors import Conflict, OutcomeUnknown, Superseded
from domain.inventory import GuestSpec
from drivers.domain_xml import NAMESPACE, domain_xml, generation_in
from drivers.libvirt_hypervisor import LibvirtHypervisor
from drivers.libvirt_lane import GivenUp, Ticket
from drivers.libvirt_marks import renew

pytestmark = pytest.mark.unit

DEADLINE_S = 20.0
SHARED = "test:///default"
"""Connections of one process share this host while one is open."""

ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


@pytest.fixture
def by_hand(spec: GuestSpec) -> Iterator[libvirt.virConnect]:
    """A person's own connection to SHARED."""
    made = libvirt.open(SHARED)
    yield made
    for domain in made.listAllDomains():
        if domain.UUIDString() == str(spec.vm_id):
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefine()
    made.close()


def marks(domain: libvirt.virDomain) -> tuple[int | None, int | None]:
    """The generations in what runs and in what is defined."""
    live, kept = (domain.metadata(ELEMENT, NAMESPACE, where) for where in (LIVE, CONFIG))
    return generation_in(live), generation_in(kept)


def found(connection: libvirt.virConnect, vm_id: UUID) -> libvirt.virDomain:
    """The VM, to the person."""
    return connection.lookupByUUIDString(str(vm_id))


async def test_a_mark_is_renewed_in_what_runs_and_in_what_is_defined_and_may_be_repeated(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 3)
        await session.create(spec.vm_id, 3)
        number = found(by_hand, spec.vm_id).ID()
        for _ in range(2):
            await session.renew_mark(spec.vm_id, 3, 5)
        read = await session.lookup(spec.vm_id)
    assert read
    assert (read.alive, read.generation) == (True, 5)
    domain = found(by_hand, spec.vm_id)
    assert (domain.ID(), marks(domain)) == (number, (5, 5))


async def test_what_runs_undefined_is_defined_as_it_is(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    made = by_hand.createXML(domain_xml(spec, 3))
    assert not made.isPersistent()
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        for _ in range(2):
            await session.renew_mark(spec.vm_id, 3, 4)
        read = await session.lookup(spec.vm_id)
    domain = found(by_hand, spec.vm_id)
    assert read
    assert (read.alive, read.generation, bool(domain.isPersistent())) == (True, 4, True)
    assert marks(domain) == (4, 4)


async def test_the_mark_of_an_import_goes_with_the_old_one(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    claim = uuid4()
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 1)
        await session.create(spec.vm_id, 1)
        claimed = f'<run generation="1" claim="{claim}"/>'
        found(by_hand, spec.vm_id).setMetadata(
            ELEMENT, claimed, "holdfast", NAMESPACE, LIVE | CONFIG
        )
        await session.renew_mark(spec.vm_id, 1, 2)
        await session.disown(spec.vm_id, claim)
        read = await session.lookup(spec.vm_id)
    assert read
    assert read.generation == 2


async def test_only_the_mark_that_was_read_is_renewed(
    hypervisor: LibvirtHypervisor, by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        with pytest.raises(Conflict, match="DOMAIN_NOT_RUNNING"):
            await session.renew_mark(spec.vm_id, 1, 2)
        await session.define(spec, 3)
        with pytest.raises(Conflict, match="DOMAIN_NOT_RUNNING"):
            await session.renew_mark(spec.vm_id, 3, 4)
        await session.create(spec.vm_id, 3)
        with pytest.raises(Conflict, match="DOMAIN_RUNNING_OLDER"):
            await session.renew_mark(spec.vm_id, 2, 4)
        with pytest.raises(Superseded, match="GENERATION_STALE"):
            await session.renew_mark(spec.vm_id, 1, 2)
        domain = found(by_hand, spec.vm_id)
        domain.setMetadata(ELEMENT, None, None, NAMESPACE, LIVE | CONFIG)
        with pytest.raises(Conflict, match="DOMAIN_FOREIGN"):
            await session.renew_mark(spec.vm_id, 3, 4)


async def test_a_mark_that_does_not_read_back_is_not_taken_for_written(
    hypervisor: LibvirtHypervisor,
    by_hand: libvirt.virConnect,
    spec: GuestSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with hypervisor.session(SHARED, DEADLINE_S) as session:
        await session.define(spec, 3)
        await session.create(spec.vm_id, 3)
        written = libvirt.virDomain.setMetadata

        def half(domain: libvirt.virDomain, *args: object) -> int:
            return int(written(domain, *args[:-1], LIVE))

        monkeypatch.setattr(libvirt.virDomain, "setMetadata", half)
        with pytest.raises(OutcomeUnknown, match="READ_BACK_DIFFERS"):
            await session.renew_mark(spec.vm_id, 3, 4)
        monkeypatch.undo()
        await session.renew_mark(spec.vm_id, 3, 4)
        assert marks(found(by_hand, spec.vm_id)) == (4, 4)


def test_who_was_given_up_between_the_two_calls_sends_no_second_one(
    by_hand: libvirt.virConnect, spec: GuestSpec
) -> None:
    domain = by_hand.createXML(domain_xml(spec, 3))
    with pytest.raises(GivenUp):
        renew(by_hand, GivenUpAfterOne(), spec.vm_id, 3, 5)
    read = (generation_in(domain.metadata(ELEMENT, NAMESPACE, LIVE)), domain.isPersistent())
    domain.destroy()
    assert read == (5, 0)


class GivenUpAfterOne(Ticket):
    """Its lane is given up right after the first change was sent."""

    def sending(self) -> None:
        super().sending()
        self.give_up()

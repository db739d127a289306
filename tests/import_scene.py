"""A host with a foreign guest, an import of it, and rows that are kept in memory."""

from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

from activities.imports import AdoptOrder, Imports, ImportStep, RecordOrder
from domain.errors import Conflict
from domain.foreign import ForeignGuest
from domain.inventory import GuestSpec, Nic, VirtType
from domain.orders import HostRef, RunRef
from tests.fakes import DataCentre, FakeDomain, FakeHypervisor


class Rows:
    """Fits `ImportRecords`: the VMs that were recorded, and whose they are."""

    def __init__(self) -> None:
        self.runs: dict[UUID, RunRef | None] = {}
        self.owner: dict[UUID, UUID] = {}  # guest → import, while it is this import's own
        self.followed: set[UUID] = set()

    async def record(self, step: ImportStep, guest: ForeignGuest) -> RunRef | None:
        """The VM and its run, once."""
        if self.owner.setdefault(step.guest_id, step.operation_id) != step.operation_id:
            raise Conflict("VM_EXISTS", f"{guest.name} is a VM already")
        if step.guest_id not in self.runs:
            self.runs[step.guest_id] = _run_of(step, guest) if guest.alive else None
        return self.runs[step.guest_id]

    async def still_recorded(self, step: ImportStep) -> bool:
        """Whether they are this import's own."""
        return self.owner.get(step.guest_id) == step.operation_id

    async def withdraw(self, step: ImportStep) -> bool:
        """Forget them, unless a recovery has followed."""
        if step.guest_id in self.followed:
            return False
        if await self.still_recorded(step):
            del self.owner[step.guest_id], self.runs[step.guest_id]
        return True


def _run_of(step: ImportStep, guest: ForeignGuest) -> RunRef:
    return RunRef(
        run_id=uuid4(),
        operation_id=step.operation_id,
        host_id=step.host.host_id,
        host_name=step.host.name,
        uri=step.host.uri,
        epoch=step.host.epoch,
        generation=1,
        spec=spec_of(guest, guest.name),
    )


class Scene:
    """A host with one foreign guest, and an import of it."""

    def __init__(self, *, running: bool = True) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.guest_id = self.centre.add_foreign(self.host, "db", running=running)
        self.rows = Rows()
        self.imports = Imports(FakeHypervisor(self.centre), self.rows)
        self.step = self.another()

    def another(self) -> ImportStep:
        """One more import of the same guest."""
        host = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        return ImportStep(
            operation_id=uuid4(),
            host=host,
            guest_id=self.guest_id,
            name=None,
            protected=True,
            priority=50,
            deadline_s=5.0,
        )

    @property
    def domain(self) -> FakeDomain:
        """The guest on its host."""
        return self.host.domains[self.guest_id]

    async def run(self, step: ImportStep | None = None) -> str:
        """Every step of an import, as the workflow takes them."""
        step = step or self.step
        guest = await self.imports.read(step)
        run = await self.imports.record(RecordOrder(step=step, guest=guest))
        return await self.imports.adopt(AdoptOrder(step=step, running=run is not None))

    def hook(self, call: str, act: Callable[[], object]) -> None:
        """Have something happen just before a call reaches the host, once."""

        async def once() -> None:
            del self.centre.before[call]
            act()

        self.centre.before[call] = once

    def foreign_as_found(self) -> bool:
        """Whether neither row nor mark is left, and the one copy runs."""
        marks = (self.domain.generation, self.domain.running, self.domain.claim)
        copies = self.centre.copies(self.guest_id)
        return marks == (None, None, None) and self.rows.owner == {} and copies == ["h1"]


def spec_of(
    guest: ForeignGuest, name: str, networks: Mapping[str | None, str] | None = None
) -> GuestSpec:
    """The guest as a VM of ours; `networks` gives the name of a network by its bridge.

    A bridge that is in none is its own name, and a card without a bridge is on `user`.
    """
    known = networks or {}
    return GuestSpec(
        vm_id=guest.guest_id,
        name=name,
        memory_mib=guest.memory_mib,
        vcpus=guest.vcpus,
        virt_type=VirtType(guest.virt_type),
        disks=guest.disks,
        boot=guest.boot,
        machine=guest.machine,
        nics=tuple(
            Nic(
                network=known.get(nic.bridge, nic.bridge or "user"),
                bridge=nic.bridge,
                mac=nic.mac,
                model=nic.model,
            )
            for nic in guest.nics
        ),
    )

"""Steps that bring a host into service: power on, wait for it, reconcile it, admit it.

Reconciling comes before any new work. Copies whose run has moved on are destroyed first; a copy
that is still the VM's only one is kept and carried into the host's new epoch. Domains without our
metadata are listed and never touched, but for one: a guest that the engine knows as running here,
because its import ended between recording and marking it, gets the mark that it lacks. Taken for
gone, it would be started a second time elsewhere.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession, PowerSwitch
from activities.power import switch_on
from activities.waiting import until
from domain.autostart import counts, told
from domain.base import Frozen
from domain.errors import Conflict, EngineError, NoAnswer, Superseded
from domain.foreign import FIRST_GENERATION
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef, Reconciliation
from domain.profiles import Policy
from domain.readings import Domain

BMC_BOOTS_S = 120.0
"""How long a BMC is waited for that says nothing: they need 30 to 90 s from current to an answer.
Higher: a host with a dead one that nobody switches on is told later. Lower: a slow one is taken for
dead, and its host, which boots only by its word, is never switched on."""

BMC_POLL_S = 1.0
"""Between two looks at it. Higher: its host boots later. Lower: a BMC that boots is asked more."""


class HostStep(Frozen):
    """One step on one host."""

    operation_id: UUID
    host: HostRef
    policy: Policy


class AdmitOrder(Frozen):
    """Let a reconciled host into service."""

    operation_id: UUID
    host: HostRef
    settled: Reconciliation


class FailOrder(Frozen):
    """Record that a host could not be brought into service."""

    host: HostRef
    why: str


class CopyVerdict(Frozen):
    """What is to become of one domain found on a host."""

    vm_id: UUID
    keep: bool
    generation: int  # the newest that the engine knows: nothing newer may be destroyed
    claim: UUID | None = None  # it lacks its mark: the import in whose name it is to get it


class HostRecords(Protocol):
    """The rows of hosts. Every method is one transaction, and repeatable."""

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        """The host's power controllers, by name."""
        ...

    async def judge_copies(
        self, host: HostRef, domains: tuple[Domain, ...]
    ) -> tuple[CopyVerdict, ...]:
        """Which of our domains stay; those of VMs that the engine does not know are left out.

        A domain without our mark is left out, too, unless it is alive and a VM's copy here by our
        rows. Conflict: SAME_MACHINE when one of them is the running copy of another host,
        COPY_UNMARKED when such a copy cannot be marked or destroyed.
        """
        ...

    async def expected_runs(self, host: HostRef) -> tuple[UUID, ...]:
        """This host's runs whose process a reading from now on would show."""
        ...

    async def settle_runs(
        self, host: HostRef, expected: tuple[UUID, ...], alive: tuple[UUID, ...]
    ) -> tuple[str, ...]:
        """Close this host's runs that were expected and read as gone; names of their VMs.

        Superseded EPOCH_STALE once the host is in other hands.
        """
        ...

    async def admit(self, order: AdmitOrder) -> int:
        """Raise the epoch, carry surviving runs into it, move to `up`; the new epoch."""
        ...

    async def fail(self, order: FailOrder) -> None:
        """Move the host to `non_operational` with the reason."""
        ...


class Hosts:
    """Power on, wait, reconcile, admit."""

    def __init__(self, hypervisor: Hypervisor, power: PowerSwitch, records: HostRecords) -> None:
        self._hypervisor = hypervisor
        self._power = power
        self._records = records

    @activity.defn(name="host.power_on")
    async def power_on(self, step: HostStep) -> str:
        """Switch on every device that reads off, the highest level first; without any, nothing.

        One that says nothing may be a BMC that boots, since its outlet is on again, or may have
        missed one question: it is asked again, unless its host answers or it takes longer than
        `BMC_BOOTS_S`. So is one that still reads off.
        """
        switched: list[str] = []
        silent: list[str] = []
        devices = await self._records.devices(step.host.host_id)
        if not devices:
            return "no power controller"

        async def all_said() -> bool:
            switched.extend(await switch_on(self._power, devices))
            words = {device.name: await self._power.read(device) for device in devices}
            silent[:] = [name for name, word in words.items() if word is PowerReading.UNKNOWN]
            # One that has begun to answer just now is still to be told.
            is_off = PowerReading.OFF in words.values()
            return not (silent or is_off) or await self._answers(step)

        within_s = min(BMC_BOOTS_S, step.policy.power_on_answer_s)
        await until(all_said, every_s=BMC_POLL_S, within_s=within_s)
        said = f"switched on: {', '.join(dict.fromkeys(switched))}" if switched else "already on"
        return f"{said}; no answer from {', '.join(silent)}" if silent else said

    @activity.defn(name="host.await_answer")
    async def await_answer(self, step: HostStep) -> None:
        """Wait until libvirt on the host takes a connection."""

        limit_s = step.policy.power_on_answer_s
        if not await until(lambda: self._answers(step), every_s=0.5, within_s=limit_s):
            raise Conflict(
                "HOST_NEVER_ANSWERED",
                f"{step.host.name} did not answer at {step.host.uri} within {limit_s:.0f} s",
                next_step="check the URI, the host's power and its libvirtd, then activate again",
                host=step.host.name,
            )

    @activity.defn(name="host.reconcile")
    async def reconcile(self, step: HostStep) -> Reconciliation:
        """Settle every copy on the host and mark this boot with the next epoch; repeatable.

        Before anything is touched: Superseded EPOCH_STALE or Conflict SAME_MACHINE when the machine
        is another host's already, Conflict COPY_UNMARKED when a copy here cannot be told as ours.
        """
        async with self._session(step) as session:
            mark = await session.boot_mark()
            _refuse_newer(step.host, mark)
            # Asked before the reading: a start that ends meanwhile is not to be called gone.
            expected = await self._records.expected_runs(step.host)
            domains = await session.domains()
            _refuse_autostart(step.host, domains)
            judged = tuple(d for d in domains if d.generation is not None or d.alive)
            verdicts = {v.vm_id: v for v in await self._records.judge_copies(step.host, judged)}
            known = [domain for domain in judged if domain.vm_id in verdicts]
            stale = [domain for domain in known if not verdicts[domain.vm_id].keep]
            _refuse_served(step.host, mark, stale)
            for verdict in verdicts.values():
                if verdict.claim is not None:
                    await session.adopt(verdict.vm_id, FIRST_GENERATION, verdict.claim)
            for domain in stale:
                await session.destroy(domain.vm_id, verdicts[domain.vm_id].generation)
                await session.undefine(domain.vm_id, verdicts[domain.vm_id].generation)
            await self._read_back_gone(session, stale)
            kept = [d for d in known if verdicts[d.vm_id].keep and d.alive]
            await session.set_boot_mark(step.host.epoch + 1)
        alive = tuple(domain.vm_id for domain in kept)
        ended = await self._records.settle_runs(step.host, expected, alive)
        reading = await self._hypervisor.poll(step.host.uri, step.policy.connect_deadline_s)
        return Reconciliation(
            kept=tuple(domain.name for domain in kept),
            destroyed=tuple(domain.name for domain in stale),
            ended=ended,
            foreign=tuple(d.name for d in domains if d.vm_id not in verdicts),
            memory_mib=reading.memory_total_mib,
            cpus=reading.cpus,
        )

    @activity.defn(name="host.admit")
    async def admit(self, order: AdmitOrder) -> int:
        """Let the host into `up`; the new epoch."""
        return await self._records.admit(order)

    @activity.defn(name="host.fail")
    async def fail(self, order: FailOrder) -> None:
        """Leave the host out of service, saying why."""
        await self._records.fail(order)

    async def _read_back_gone(self, session: HypervisorSession, stale: list[Domain]) -> None:
        for domain in stale:
            found = await session.lookup(domain.vm_id)
            if found is not None and found.alive:
                raise EngineError(
                    "STALE_COPY_RUNS", f"the old copy of {domain.name} still runs after destroy"
                )

    async def _answers(self, step: HostStep) -> bool:
        try:
            async with self._session(step):
                return True
        except NoAnswer:
            return False

    def _session(self, step: HostStep) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(step.host.uri, step.policy.connect_deadline_s)


def _refuse_newer(host: HostRef, mark: int | None) -> None:
    # The next epoch is what an earlier try of this very step may have left.
    if mark is not None and mark > host.epoch + 1:
        raise Superseded(
            "EPOCH_STALE",
            f"{host.name} stands at epoch {host.epoch}, and this boot of it is marked with {mark}: "
            "nothing on it was touched",
            next_step=f"find out whether another host, or another engine, has the machine at "
            f"{host.uri}; if none has, reboot it or remove its pool holdfast-epoch-{mark}",
            host=host.name,
            epoch=host.epoch,
            found=mark,
        )


def _refuse_served(host: HostRef, mark: int | None, stale: list[Domain]) -> None:
    """A host that was never admitted has no old copies in a boot that was marked."""
    alive = sorted(domain.name for domain in stale if domain.alive)
    if host.epoch == 0 and mark is not None and alive:
        raise Conflict(
            "SAME_MACHINE",
            f"{host.name} is new, but its machine is in service already, marked with epoch {mark}, "
            f"and runs {len(alive)} VMs of ours: {', '.join(alive)}",
            next_step="remove this host, and use the one that has the machine; if none has, "
            f"reboot the machine or remove its pool holdfast-epoch-{mark}",
            host=host.name,
            found=mark,
            count=len(alive),
        )


def _refuse_autostart(host: HostRef, domains: tuple[Domain, ...]) -> None:
    ours = (d for d in domains if counts(autostart=d.autostart, generation=d.generation))
    if names := tuple(sorted(domain.name for domain in ours)):
        raise Conflict(
            "HOST_AUTOSTART",
            told(host.name, names),
            next_step="run `virsh autostart --disable` for them, then activate again",
            host=host.name,
        )

"""Steps of a soft step: claim it, restart libvirtd over SSH, read the host back, record the end.

Nothing here is evidence of a death, and nothing harder follows from a failure: the host stays as it
is, and a person is told.
"""

from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor
from activities.waiting import until
from domain.base import Frozen
from domain.errors import Conflict, EngineError, Unavailable
from domain.orders import HostRef
from domain.profiles import Policy
from domain.readings import Domain
from domain.soft_step import Hung
from domain.ssh_access import SshAccess

READ_EVERY_S = 0.5
"""Between looks at a libvirtd that was restarted; one that has just begun is not to be pestered."""

ANSWERED, FAILED, CANCELLED, MISSING = "answered", "failed", "cancelled", "guests_missing"
"""How a soft step ends."""

GUESTS_MISSING = "GUESTS_MISSING"


class Guest(Frozen):
    """One guest that was alive when its host last answered."""

    vm_id: UUID
    name: str


class SoftStep(Frozen):
    """One try of restarting a host's libvirtd."""

    operation_id: UUID
    attempt: int
    host: HostRef
    policy: Policy
    hung: Hung | None = None


class Claimed(Frozen):
    """What a claimed soft step goes by: where to knock, and who was alive before."""

    access: SshAccess
    guests: tuple[Guest, ...]
    why: str


class RestartStep(Frozen):
    """A soft step with what was claimed."""

    step: SoftStep
    claimed: Claimed


class EndStep(Frozen):
    """How a soft step ended."""

    step: SoftStep
    outcome: str
    detail: str


class Ssh(Protocol):
    """Hosts reached over SSH, for one command."""

    async def restart_libvirtd(self, access: SshAccess, deadline_s: float) -> None:
        """Have a host restart its libvirtd; returns once its command has said that it did.

        Repeatable: a libvirtd that was just restarted is restarted again, and guests run on.
        NoAnswer (`SSH_NO_ANSWER`) when that is not known; Refused where the host is another one
        (`SSH_HOST_KEY_CHANGED`), lets nobody in (`SSH_NOT_LET_IN`) or has failed at it
        (`SSH_COMMAND_FAILED`).
        """
        ...


class SoftStepRecords(Protocol):
    """The rows of soft steps. Every method is one transaction, and repeatable."""

    async def claim(self, step: SoftStep) -> Claimed:
        """The right to restart that libvirtd now; Conflict (`SOFT_STEP_NOT_ALLOWED`) otherwise."""
        ...

    async def ask_again(self, step: SoftStep) -> None:
        """Conflict (`SOFT_STEP_NOT_ALLOWED`) once a claimed step has ended, or a VM is moving."""
        ...

    async def end(self, step: EndStep) -> None:
        """Record how it ended, with an event; an end that is there already stays."""
        ...


class SoftSteps:
    """Claim, restart, read back, record."""

    def __init__(self, hypervisor: Hypervisor, ssh: Ssh, records: SoftStepRecords) -> None:
        self._hypervisor = hypervisor
        self._ssh = ssh
        self._records = records

    @activity.defn(name="soft.claim")
    async def claim(self, step: SoftStep) -> Claimed:
        """Ask once more, in the statement itself, for all that makes it safe."""
        return await self._records.claim(step)

    @activity.defn(name="soft.restart")
    async def restart(self, order: RestartStep) -> str:
        """Restart libvirtd; repeatable. One that hung and answers again is left alone."""
        step = order.step
        if step.hung is not None and await self._answers(step):
            return "libvirt answers already"
        # This step may be late, and run when another of its tries has long been given up.
        await self._records.ask_again(step)
        try:
            await self._ssh.restart_libvirtd(order.claimed.access, step.policy.soft_restart_s)
        except Unavailable:
            # The answer of the command may be lost, and the command not: libvirt itself tells.
            if step.hung is None or not await self._answers(step):
                raise
            return "the command did not answer, and libvirt does"
        return f"restarted as {order.claimed.access.user} at {order.claimed.access.address}"

    @activity.defn(name="soft.read_back")
    async def read_back(self, order: RestartStep) -> str:
        """Wait until libvirt answers in the same boot, and find every guest alive that was.

        Conflict: LIBVIRT_STILL_SILENT, HOST_REBOOTED, GUESTS_MISSING.
        """
        step, found = order.step, list[tuple[int | None, tuple[Domain, ...]]]()

        async def answers() -> bool:
            try:
                found.append(await self._look(step))
            except Unavailable:
                return False
            return True

        limit_s = step.policy.soft_answer_s
        if not await until(answers, every_s=READ_EVERY_S, within_s=limit_s):
            raise Conflict(
                "LIBVIRT_STILL_SILENT",
                f"libvirt on {step.host.name} does not answer {limit_s:g} s after its restart",
                next_step=f"look at libvirtd on {step.host.name} yourself; its guests run on. Cut"
                " its power by hand if it must go: reading off starts the recovery",
                host=step.host.name,
            )
        mark, domains = found[-1]
        if mark != step.host.epoch:
            raise Conflict(
                "HOST_REBOOTED",
                f"{step.host.name} answers in another boot than that of epoch {step.host.epoch}",
                next_step="nothing: a monitor has it reconciled",
                host=step.host.name,
            )
        return self._compared(order, domains)

    @activity.defn(name="soft.end")
    async def end(self, step: EndStep) -> None:
        """Record how it ended."""
        await self._records.end(step)

    def _compared(self, order: RestartStep, domains: tuple[Domain, ...]) -> str:
        name, before = order.step.host.name, order.claimed.guests
        alive = {domain.vm_id for domain in domains if domain.alive}
        gone = sorted(guest.name for guest in before if guest.vm_id not in alive)
        if gone:
            raise Conflict(
                GUESTS_MISSING,
                f"libvirt on {name} answers again, and {len(gone)} of {len(before)} guests that"
                f" were alive before are not: {', '.join(gone[:10])}",
                next_step="protected VMs are started again (`holdfast op list --kind vm.recover`);"
                f" find out why on {name}",
                host=name,
            )
        return f"libvirt on {name} answers again; all {len(before)} guests run on"

    async def _answers(self, step: SoftStep) -> bool:
        try:
            mark, _domains = await self._look(step)
        except EngineError:
            return False
        return mark == step.host.epoch

    async def _look(self, step: SoftStep) -> tuple[int | None, tuple[Domain, ...]]:
        deadline_s = step.policy.connect_deadline_s
        async with self._hypervisor.session(step.host.uri, deadline_s) as session:
            return await session.boot_mark(), await session.domains()

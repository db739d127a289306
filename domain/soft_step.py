"""Whether the libvirtd of a host may be restarted over SSH: the soft step before anything harder.

It is for one failure only: libvirt says nothing while the host's kernel takes connections, so that
its guests run and nobody may fence it. Restarting libvirtd leaves guests as they are. It is no
evidence of anything: a restart that fails proves nothing dead, and no fence follows from it.

What a person asks for is held to what keeps it safe; how often, and whether anything is to act by
itself, is asked of the engine's own steps alone.
"""

from collections.abc import Iterator

from domain.base import Frozen
from domain.inventory import HostState, PowerReading
from domain.readings import Knock

TRIES_MAX = 3
"""Soft steps of the engine's own on one host in `WINDOW_S`. Higher: a libvirtd that cannot live is
restarted for longer before a person is called. Lower: one bad moment uses them up."""

WINDOW_S = 3600.0
"""In which they are counted, by the clock on the wall: a wrong one makes a try come early or late,
and neither harms a guest."""

AGAIN_S = 60.0
"""From one soft step to the next, doubled each time. A restart takes seconds; a host with hundreds
of guests needs most of a minute until its libvirtd answers."""


class Hung(Frozen):
    """What a monitor says of a host whose libvirt is silent. Seconds by its monotonic clock."""

    epoch: int
    silent_s: float
    door: Knock
    power: tuple[PowerReading, ...] = ()
    reported_by: str = ""


class SoftFacts(Frozen):
    """What is looked at. `hung` None: a person asks.

    hearing      monitors that hear its libvirt
    moving       VMs that are migrating from or to it
    tries_ago_s  how long ago the engine restarted its libvirtd, of the last `WINDOW_S`
    lost_guests  the last soft step, in that time, was followed by guests that were missing
    """

    host: str
    state: HostState
    epoch: int
    access: bool
    armed: bool = True
    enabled: bool = True
    hung: Hung | None = None
    silence_s: float = 0.0  # the profile's limit
    hearing: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    tries_ago_s: tuple[float, ...] = ()
    lost_guests: bool = False


class No(Frozen):
    """One reason against it."""

    code: str
    detail: str
    next_step: str
    wait_s: float | None = None  # when that alone would allow it


def why_not(facts: SoftFacts) -> tuple[No, ...]:
    """Every reason against restarting that libvirtd now; none: it may be."""
    return tuple((*_unsafe(facts), *(_not_by_itself(facts, facts.hung) if facts.hung else ())))


def next_try_in_s(tries_ago_s: tuple[float, ...]) -> float:
    """How long until the engine may try again; 0: now."""
    recent = sorted(ago for ago in tries_ago_s if ago < WINDOW_S)
    if not recent:
        return 0.0
    if len(recent) >= TRIES_MAX:
        # The one whose leaving the window makes room again.
        return WINDOW_S - recent[TRIES_MAX - 1]
    return max(0.0, AGAIN_S * float(2 ** (len(recent) - 1)) - recent[0])


def _unsafe(facts: SoftFacts) -> Iterator[No]:
    if not facts.access:
        yield No(
            code="NO_SSH_ACCESS",
            detail=f"{facts.host} has no SSH access configured",
            next_step=f"restart libvirtd on {facts.host} by hand, or give the engine access:"
            " `holdfast host edit HOST --ssh-user …`",
        )
    if facts.moving:
        names = ", ".join(facts.moving[:10])
        yield No(
            code="MIGRATIONS_UNDER_WAY",
            detail=f"{len(facts.moving)} VMs are migrating from or to {facts.host}: {names};"
            " a restart of libvirtd would end that half way",
            next_step="wait for those migrations, or cancel them",
        )


def _not_by_itself(facts: SoftFacts, hung: Hung) -> Iterator[No]:
    if not facts.armed:
        yield No(
            code="DISARMED",
            detail="automatic action is switched off in this cluster",
            next_step="`holdfast cluster arm NAME`, or `holdfast host restart-libvirtd HOST`",
        )
    if not facts.enabled:
        yield No(
            code="SOFT_STEP_OFF",
            detail="the soft step is switched off in this cluster",
            next_step="`holdfast cluster edit NAME --soft-step on`, or `holdfast host"
            " restart-libvirtd HOST`",
        )
    yield from _not_hung(facts, hung)
    yield from _too_often(facts)


def _not_hung(facts: SoftFacts, hung: Hung) -> Iterator[No]:
    if facts.state is not HostState.CONNECTING or facts.epoch != hung.epoch:
        yield No(
            code="NOT_HUNG",
            detail=f"{facts.host} is {facts.state} at epoch {facts.epoch}; only a host that is"
            f" connecting, at the epoch {hung.epoch} of the report, hangs",
            next_step="look at its state: `holdfast host show`",
        )
    if hung.door is not Knock.OPEN:
        yield No(
            code="DOOR_NOT_OPEN",
            detail=f"the door of {facts.host} is {hung.door}: only one that is open says that"
            " its kernel lives and its libvirtd hangs",
            next_step="wait for the next polls",
        )
    if hung.silent_s < facts.silence_s:
        yield No(
            code="SILENT_TOO_SHORT",
            detail=f"libvirt on {facts.host} was silent for {hung.silent_s:.1f} s of"
            f" {facts.silence_s:g} s",
            next_step="wait for the next polls",
        )
    if facts.hearing:
        yield No(
            code="HEARD_BY_OTHERS",
            detail=f"libvirt on {facts.host} answers {', '.join(facts.hearing)}",
            next_step=f"mend the network between {hung.reported_by or 'the monitor'} and the host",
        )
    if PowerReading.OFF in hung.power:
        yield No(
            code="POWER_READS_OFF",
            detail=f"a fence device of {facts.host} reads off while its kernel answers: it lies,"
            " or belongs to another host",
            next_step="`holdfast fence test HOST` tells which; then restart libvirtd by hand",
        )


def _too_often(facts: SoftFacts) -> Iterator[No]:
    if facts.lost_guests:
        yield No(
            code="GUESTS_WERE_MISSING",
            detail=f"guests were missing on {facts.host} after the last restart of its libvirtd",
            next_step="find out why on the host, then `holdfast host restart-libvirtd HOST`",
        )
    wait_s = next_try_in_s(facts.tries_ago_s)
    if wait_s <= 0:
        return
    tries = len(facts.tries_ago_s)
    spent = tries >= TRIES_MAX
    yield No(
        code="TRIES_SPENT" if spent else "TRIED_JUST_NOW",
        detail=f"libvirtd on {facts.host} was restarted {tries} of {TRIES_MAX} times in the last"
        f" {WINDOW_S / 60:.0f} min",
        next_step="look at libvirtd on the host; `holdfast host restart-libvirtd HOST` tries at"
        " once",
        wait_s=wait_s,
    )

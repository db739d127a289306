"""Whether a host's lease on shared storage proves it dead: the second rung of `domain.grades`.

A host writes a record with a growing sequence. Once it has not managed to for as long as the lease
lasts, nobody feeds its watchdog any more, and that resets the machine. An observer sees no clock of
the host: it counts on its own how long the sequence stayed the same, from the end of the first read
that shows it to the start of the last one. The host counts from the start of its last good write,
which is earlier, on a clock that goes on while it is suspended.

Without a watchdog that resets the machine whatever its kernel and daemons do, a lease that ran out
says only that nobody writes it: a frozen daemon, or a QEMU that waits for a disk, outlives it.
"""

from collections.abc import Iterable
from enum import StrEnum
from math import floor
from uuid import UUID

from pydantic import Field, model_validator

from domain.base import Frozen

STORAGE_LEASE = "storage_lease"
"""The kind of evidence that a lease gives; its device is the storage that holds it."""

CLOCK_RATE = 0.102
"""How much faster or slower than true time a clock may run, as a part of it; the observer's may be
fast while the host's is slow. Linux takes 10 % as a change of the tick and 500 ppm of frequency
(adjtimex(2)), also of CLOCK_MONOTONIC and CLOCK_BOOTTIME (clock_gettime(2)), and chrony uses 8.3 %
as shipped (chrony.conf(5), maxslewrate); the rest is for adjtime(3) and the crystals. Higher: VMs
wait longer. Lower: a host whose time is being set right outlives its proof."""

WATCHDOG_TURNS = 2
"""How many times the watchdog's timeout may pass after the lease. Whoever feeds it may have found
the lease good, stood still for nearly a timeout, and feed it then. Pacemaker waits for twice the
timeout of SBD's watchdog for that reason (stonith-watchdog-timeout, where it is left to it)."""

KILL_S = 10.0
"""From the watchdog's firing until nothing of the machine writes any more, in seconds. sanlock
leaves as much for its last kill (src/timeouts.h). Higher: VMs wait longer. Lower: a slow reset, or
a write that is still on its way, meets the VM's next copy."""

GAP_S = 20.0
"""The longest from the end of one good read to the end of the next, in seconds. It is how often a
host with sanlock's defaults renews (src/timeouts.h, id_renewal_seconds), and twice what one read
may take there. Higher: what happened unseen (a path that was away, a storage that was set back)
counts as silence. Lower: a slow read begins the count anew."""


class LeaseRecord(Frozen):
    """What a host writes. `watchdog_s` is the timeout of the independent watchdog that it attests
    to have armed, in seconds; None where it attests none.
    """

    host_id: UUID
    epoch: int
    sequence: int
    lease_s: float = Field(gt=0, allow_inf_nan=False)
    watchdog_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class LeaseReading(Frozen):
    """One try to read it, on the observer's monotonic clock.

    record    None: the read failed, or what it gave was no whole record
    uncached  it came from the storage itself; only then does it show that nothing was written
    """

    began_s: float = Field(allow_inf_nan=False)
    ended_s: float = Field(allow_inf_nan=False)
    record: LeaseRecord | None
    uncached: bool

    @model_validator(mode="after")
    def _in_order(self) -> "LeaseReading":
        if self.ended_s < self.began_s:
            raise ValueError("a read ends after it has begun")
        return self


class LeaseWatch(Frozen):
    """What one observer's readings have shown of one lease, as far as it counts."""

    first: LeaseReading | None = None  # the first good one of what is shown now
    last: LeaseReading | None = None
    reads: int = 0  # good ones, from the first to the last
    failed: int = 0  # others since the last good one
    anew: str = ""  # why the count began anew
    renewed: bool = False  # … because of a write


class LeaseVerdict(StrEnum):
    """What a lease says about its host's death."""

    PROOF = "proof"
    SUPPORTING = "supporting"  # it speaks for it, and certifies nothing
    NONE = "none"


class LeaseCount(Frozen):
    """How long a lease was seen unchanged; on a certificate, so that it can be checked again."""

    host_id: UUID
    epoch: int
    sequence: int
    lease_s: float = Field(gt=0, allow_inf_nan=False)
    watchdog_s: float | None = Field(gt=0, allow_inf_nan=False)
    unchanged_s: float = Field(ge=0, allow_inf_nan=False)
    reads: int

    @property
    def needed_s(self) -> float | None:
        """How long it has to be unchanged to be proof; None: it never is."""
        return None if self.watchdog_s is None else dead_after_s(self.lease_s, self.watchdog_s)

    @property
    def proves(self) -> bool:
        """Whether the host that wrote it, in that epoch, is dead."""
        return self.needed_s is not None and self.unchanged_s >= self.needed_s


class LeaseFinding(Frozen):
    """What follows from what was read, with its numbers."""

    verdict: LeaseVerdict
    code: str
    why: str
    next_step: str
    count: LeaseCount | None = None


def lapsed_after_s(lease_s: float) -> float:
    """Seconds on the observer's clock until a lease of this length has run out on its host's."""
    return lease_s * (1 + CLOCK_RATE) / (1 - CLOCK_RATE)


def dead_after_s(lease_s: float, watchdog_s: float) -> float:
    """Seconds on the observer's clock until the host's watchdog has reset it, margins included."""
    return lapsed_after_s(lease_s + WATCHDOG_TURNS * watchdog_s + KILL_S)


def watched(readings: Iterable[LeaseReading]) -> LeaseWatch:
    """What a series of one observer's readings shows, in the order in which they were begun."""
    watch = LeaseWatch()
    for reading in readings:
        watch = after(watch, reading)
    return watch


def after(watch: LeaseWatch, reading: LeaseReading) -> LeaseWatch:
    """The same with one more reading. Whatever shows another record begins the count anew."""
    record, last = reading.record, watch.last
    changed = _changed(last, record)
    if record is None or not reading.uncached:
        if changed:  # A cache has nothing of its own: somebody wrote that.
            return LeaseWatch(failed=1, anew=changed, renewed=True)
        return watch.model_copy(update={"failed": watch.failed + 1})
    if last is None:
        return watch.model_copy(update={"first": reading, "last": reading, "reads": 1, "failed": 0})
    if anew := changed or _broken(last, reading):
        return LeaseWatch(first=reading, last=reading, reads=1, anew=anew, renewed=bool(changed))
    return watch.model_copy(update={"last": reading, "reads": watch.reads + 1, "failed": 0})


def _changed(last: LeaseReading | None, record: LeaseRecord | None) -> str:
    if last is None or record is None or last.record is None or record == last.record:
        return ""
    return f"sequence {last.record.sequence} became {record.sequence}"


def _broken(last: LeaseReading, reading: LeaseReading) -> str:
    gap_s = reading.ended_s - last.ended_s
    if reading.began_s < last.ended_s:
        return "a read began before the one before it had ended"
    return f"no good read for {gap_s:.1f} s, more than {GAP_S:.0f} s" if gap_s > GAP_S else ""


def judge(host_id: UUID, epoch: int, watch: LeaseWatch) -> LeaseFinding:
    """Whether what was seen of a lease proves its host of this epoch dead.

    Whoever judges asks no clock: a count ends with the last good read, however long ago.
    """
    if watch.first is None or watch.last is None or (record := watch.last.record) is None:
        return _unread(watch)
    if (record.host_id, record.epoch) != (host_id, epoch):
        return _of_another(host_id, epoch, record)
    unchanged_s = max(0.0, watch.last.began_s - watch.first.ended_s)
    count = LeaseCount(
        **record.model_dump(),
        unchanged_s=floor(unchanged_s * 1000) / 1000,  # shown as it was counted, never more
        reads=watch.reads,
    )
    return _expired(count) if count.proves else _not_yet(count, watch)


def _unread(watch: LeaseWatch) -> LeaseFinding:
    return LeaseFinding(
        verdict=LeaseVerdict.NONE,
        code="LEASE_RENEWED" if watch.renewed else "LEASE_UNREAD",
        why=f"no good read of the lease, {watch.failed} without one{_because(watch)}",
        next_step="see whether the engine reaches the storage that holds the leases",
    )


def _of_another(host_id: UUID, epoch: int, record: LeaseRecord) -> LeaseFinding:
    return LeaseFinding(
        verdict=LeaseVerdict.NONE,
        code="LEASE_OF_ANOTHER",
        why=f"the lease was written by host {record.host_id} in epoch {record.epoch}, not by "
        f"{host_id} in epoch {epoch}",
        next_step="it says nothing of this host: prove it off by its power, or go and look",
    )


def _expired(count: LeaseCount) -> LeaseFinding:
    return LeaseFinding(
        verdict=LeaseVerdict.PROOF,
        code="LEASE_EXPIRED",
        why=f"{_seen(count)}; its watchdog of {count.watchdog_s:g} s has reset it "
        f"{count.needed_s:.1f} s after the last write",
        next_step="knock at the host, then certify",
        count=count,
    )


def _not_yet(count: LeaseCount, watch: LeaseWatch) -> LeaseFinding:
    lapsed_s = lapsed_after_s(count.lease_s)
    lapsed = count.unchanged_s >= lapsed_s
    if lapsed and count.needed_s is None:
        code = "WATCHDOG_NOT_ATTESTED"
        lacks = "but no independent watchdog is attested as armed, so the host may outlive it"
        then = "prove the host off by its power, or go and look"
    elif lapsed:
        code, then = "WATCHDOG_MAY_STILL_RUN", "read on"
        lacks = f"but its watchdog is sure to have reset it only after {count.needed_s:.1f} s"
    else:
        code, then = "LEASE_RENEWED" if watch.renewed else "LEASE_RUNS", "read on"
        lacks = f"it is sure to have run out after {lapsed_s:.1f} s{_because(watch)}"
    return LeaseFinding(
        verdict=LeaseVerdict.SUPPORTING if lapsed else LeaseVerdict.NONE,
        code=code,
        why=f"{_seen(count)}; {lacks}",
        next_step=then,
        count=count,
    )


def _seen(count: LeaseCount) -> str:
    return (
        f"the lease of {count.lease_s:g} s was unchanged (sequence {count.sequence}) for "
        f"{count.unchanged_s:.1f} s over {count.reads} reads"
    )


def _because(watch: LeaseWatch) -> str:
    return f"; counted anew: {watch.anew}" if watch.anew else ""

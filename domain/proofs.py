"""What a death certificate may be issued on."""

from domain.errors import Refused
from domain.grades import Grade
from domain.inventory import PowerReading, Silence
from domain.orders import Evidence, HostRef
from domain.storage_lease import STORAGE_LEASE, LeaseCount, LeaseFinding
from domain.topology import proven_level


def lease_fact(finding: LeaseFinding, storage: str, at: str, took_s: float) -> Evidence:
    """What a lease says, as evidence; `at` UTC in RFC 3339, `took_s` how long it was watched."""
    return Evidence(
        kind=STORAGE_LEASE,
        device=storage,
        verdict=finding.verdict,
        took_s=took_s,
        at=at,
        detail=finding.why,
        lease=finding.count,
    )


def require_proofs(host: HostRef, evidence: tuple[Evidence, ...], proofs: int) -> None:
    """Refused unless this evidence is enough to declare a host of an epoch dead.

    Enough is a person's word, or as many independent proofs as the profile wants. A lease that has
    expired is one of them, and is checked here by its own numbers, whoever has judged it.
    """
    leases = [fact for fact in evidence if fact.grade is Grade.LEASE_EXPIRED]
    for fact in leases:
        _require_lease(host, fact)
    if leases:
        _require_no_life(host, evidence)
    said = any(fact.grade is Grade.WORD for fact in evidence)
    found = len(_off(evidence, whole=bool(leases))) + (1 if leases else 0)
    if not said and found < proofs:
        raise Refused(
            "PROOFS_MISSING",
            f"{found} of {proofs} independent proofs that {host.name} is off",
            next_step="add a second fence device, or choose a profile that needs one proof",
            host=host.name,
        )


def _off(evidence: tuple[Evidence, ...], *, whole: bool) -> set[str]:
    """Devices that read off; with `whole` none of them unless a level does."""
    words = [(f.level, f.verdict) for f in evidence if isinstance(f.verdict, PowerReading)]
    if whole and proven_level(words) is None:
        return set()
    return {fact.device for fact in evidence if fact.grade is Grade.POWER_READ_OFF}


def _require_lease(host: HostRef, fact: Evidence) -> None:
    count = fact.lease
    if count is None or not count.proves:
        raise Refused(
            "LEASE_PROVES_NOTHING",
            f"the lease of {host.name} on {fact.device} {_falls_short(count)}",
            next_step="it may only support another proof: prove the host off by its power, or go "
            "and look",
            host=host.name,
        )
    if (count.host_id, count.epoch) != (host.host_id, host.epoch):
        raise Refused(
            "LEASE_OF_ANOTHER",
            f"the lease on {fact.device} is of host {count.host_id} in epoch {count.epoch}, not "
            f"of {host.name} ({host.host_id}) in epoch {host.epoch}",
            next_step="it says nothing of this host: prove it off by its power, or go and look",
            host=host.name,
            epoch=host.epoch,
        )


def _falls_short(count: LeaseCount | None) -> str:
    if count is None:
        return "comes without the numbers that it rests on"
    if count.needed_s is None:
        return "attests no independent watchdog as armed"
    return f"was unchanged for {count.unchanged_s:.1f} s of {count.needed_s:.1f} s"


def _require_no_life(host: HostRef, evidence: tuple[Evidence, ...]) -> None:
    if on := [fact.device for fact in evidence if fact.verdict is PowerReading.ON]:
        raise Refused(
            "SIGN_OF_LIFE",
            f"{', '.join(on)} reads on though the storage lease of {host.name} has expired",
            next_step="cut its power: a device that answers can prove it off",
            host=host.name,
        )
    if not any(f.verdict is Silence.SILENT and f.device == host.name for f in evidence):
        raise Refused(
            "NOT_KNOCKED",
            f"{host.name} was not knocked at, and only its storage lease says that it is dead",
            next_step="knock at it: only silence lets it be certified",
            host=host.name,
        )

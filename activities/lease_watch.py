"""Watching hosts' leases on shared storage; what they prove is `domain.storage_lease`.

No step of a fence asks this yet: a host whose power cannot be read still waits for a person.
"""

from uuid import UUID

from activities.ports import StorageLeases
from domain.orders import HostRef
from domain.storage_lease import LeaseFinding, LeaseVerdict, LeaseWatch, after, judge


class LeaseObserver:
    """One observer: it forgets what it saw when it ends, and then counts anew.

    leases  None where no storage holds leases, which is then what every look says.
    """

    def __init__(self, leases: StorageLeases | None) -> None:
        self._leases = leases
        self._watches: dict[UUID, LeaseWatch] = {}

    async def look(self, host: HostRef) -> LeaseFinding:
        """Read the lease of a host once more, and say what all that was read of it shows."""
        if self._leases is None:
            return _no_lease("NO_LEASE_STORAGE", "no storage holds leases of hosts")
        reading = await self._leases.read(host)
        if reading is None:
            self._watches.pop(host.host_id, None)
            return _no_lease("NO_LEASE", f"{self._leases.storage} holds no lease of {host.name}")
        watch = after(self._watches.get(host.host_id, LeaseWatch()), reading)
        self._watches[host.host_id] = watch
        return judge(host.host_id, host.epoch, watch)


def _no_lease(code: str, why: str) -> LeaseFinding:
    return LeaseFinding(
        verdict=LeaseVerdict.NONE,
        code=code,
        why=why,
        next_step="prove the host off by its power, or go and look",
    )

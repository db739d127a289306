"""One observer of leases: it counts what it has read itself, and says so where there is none."""

from uuid import uuid4

import pytest

from activities.lease_watch import LeaseObserver
from domain.orders import HostRef
from domain.storage_lease import LeaseReading, LeaseRecord, LeaseVerdict

pytestmark = pytest.mark.unit

H1, H2 = (HostRef(host_id=uuid4(), name=name, uri="", epoch=1) for name in ("h1", "h2"))


class Shelf:
    """A storage with the lease of one host, on a clock that each read moves on."""

    storage = "san1"

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sequence = 1
        self.read_names: list[str] = []

    async def read(self, host: HostRef) -> LeaseReading | None:
        """What stands there now."""
        self.read_names.append(host.name)
        self.now_s += 5.0
        if host != H1:
            return None
        record = LeaseRecord(
            host_id=host.host_id,
            epoch=host.epoch,
            sequence=self.sequence,
            lease_s=10.0,
            watchdog_s=5.0,
        )
        return LeaseReading(
            began_s=self.now_s, ended_s=self.now_s + 0.1, record=record, uncached=True
        )


async def test_without_a_storage_for_leases_every_look_says_so() -> None:
    finding = await LeaseObserver(None).look(H1)
    assert (finding.verdict, finding.code) == (LeaseVerdict.NONE, "NO_LEASE_STORAGE")
    assert finding.next_step


async def test_a_host_that_has_no_lease_is_told_apart_from_a_silent_one() -> None:
    finding = await LeaseObserver(Shelf()).look(H2)
    assert (finding.verdict, finding.code) == (LeaseVerdict.NONE, "NO_LEASE")
    assert finding.why == "san1 holds no lease of h2"


async def test_looks_add_up_until_the_lease_is_proof_and_a_renewal_ends_that() -> None:
    shelf = Shelf()
    observer = LeaseObserver(shelf)
    codes = [(await observer.look(H1)).code for _ in range(10)]
    # 10 s of lease, 2 x 5 s of watchdog and 10 s to kill are 36.8 s with both clocks wrong.
    assert codes == ["LEASE_RUNS"] * 3 + ["WATCHDOG_MAY_STILL_RUN"] * 5 + ["LEASE_EXPIRED"] * 2
    shelf.sequence += 1
    assert (await observer.look(H1)).code == "LEASE_RENEWED"


async def test_another_observer_counts_from_its_own_first_read() -> None:
    shelf = Shelf()
    first = LeaseObserver(shelf)
    for _ in range(10):
        await first.look(H1)
    assert (await LeaseObserver(shelf).look(H1)).code == "LEASE_RUNS"

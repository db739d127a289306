"""The shared storage domain and the leases that hosts keep on it."""

from enum import StrEnum


class StorageState(StrEnum):
    """How the storage domain serves everybody."""

    OK = "ok"
    READ_ONLY = "read_only"  # what is written fails: no guest can open its disks, no lease is kept
    GONE = "gone"  # nothing is answered


class Leases:
    """When each host last wrote its lease, on the monotonic clock."""

    def __init__(self) -> None:
        self._written_s: dict[str, float] = {}

    def write(self, host: str, now_s: float) -> None:
        """Keep the time of a write."""
        self._written_s[host] = now_s

    def written_s(self, host: str) -> float | None:
        """The time of the last write; None when there was none."""
        return self._written_s.get(host)

    def age_s(self, host: str, now_s: float) -> float | None:
        """Seconds since the last write; None when there was none."""
        written_s = self.written_s(host)
        return None if written_s is None else now_s - written_s


class SharedStorage:
    """One storage domain that every host uses."""

    def __init__(self, name: str = "storage") -> None:
        self.name = name
        self.state = StorageState.OK
        self.leases = Leases()

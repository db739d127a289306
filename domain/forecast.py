"""What the loss of a host would mean now: which VMs come back where and when, and which wait.

Pure: the planner that a recovery uses, asked before there is one. The times are what the cluster's
profile predicts from the fault to the first VM (`domain.profiles.predict`), and one start more for
each VM that has to be ready before, with its delay where it has one. As many start side by side on
one host as its cluster allows. How long a guest takes until its agent or a port of it answers is
not foreseen, nor what else the cluster is at then: who comes after such a VM is told with its name.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from domain.affinity import Affinity
from domain.base import Frozen
from domain.placement import Guest, NoRoom, Room, Told, place_and_tell
from domain.profiles import LAB_START_S, STARTS_PER_HOST, Prediction
from domain.readiness import ReadyRule, ReadyWhen
from domain.recovery import restart_sequence

NO_RULES: Mapping[UUID, ReadyRule] = MappingProxyType({})


class Back(Frozen):
    """One VM that comes back: where, and so many seconds after each kind of fault."""

    vm_id: UUID
    name: str
    host: str
    power_cut_s: float
    isolation_s: float
    gave_way: tuple[str, ...] = ()  # soft rules that its place would break
    after: tuple[str, ...] = ()  # and once these are ready, however long that takes


class Waits(Frozen):
    """One protected VM that would wait, and for what."""

    vm_id: UUID
    name: str
    why: str


class Forecast(Frozen):
    """The loss of one host."""

    back: tuple[Back, ...]
    waits: tuple[Waits, ...]
    stay_down: tuple[str, ...]  # unprotected VMs, by name


def forecast(
    guests: tuple[Guest, ...],
    rooms: tuple[Room, ...],
    affinity: Affinity,
    prediction: Prediction,
    ready: Mapping[UUID, ReadyRule] = NO_RULES,
    per_host: int = STARTS_PER_HOST,
) -> Forecast:
    """What becomes of a host's `guests` on the `rooms` that are left without it.

    `ready` are the rules of those that have one, `per_host` how many start at once on one host.
    Invalid (`DEPENDENCY_CYCLE`) when VMs wait for each other.
    """
    wanted = restart_sequence(tuple(guest for guest in guests if guest.protected))
    times = _Times(ready, per_host)
    back: list[Back] = []
    waits: list[Waits] = []
    # It is placed in another order than it is started in.
    places = {told.guest.vm_id: told for told in place_and_tell(wanted, rooms, affinity)}
    for told in (places[guest.vm_id] for guest in wanted):
        if isinstance(told.choice, NoRoom):
            waits.append(
                Waits(vm_id=told.guest.vm_id, name=told.guest.name, why=told.choice.detail)
            )
            times.waits(told.guest)
        else:
            back.append(_back(told, told.choice.gave_way, times, prediction))
    return Forecast(
        back=tuple(sorted(back, key=lambda one: (one.power_cut_s, one.name))),
        waits=tuple(sorted(waits, key=lambda one: one.name)),
        stay_down=tuple(sorted(guest.name for guest in guests if not guest.protected)),
    )


def _back(told: Told, gave_way: tuple[str, ...], times: "_Times", prediction: Prediction) -> Back:
    assert told.host is not None
    later_s, after = times.starts(told.guest, told.host)
    return Back(
        vm_id=told.guest.vm_id,
        name=told.guest.name,
        host=told.host,
        power_cut_s=prediction.power_cut_s + later_s,
        isolation_s=prediction.isolation_s + later_s,
        gave_way=gave_way,
        after=after,
    )


class _Times:
    """When each VM starts, in seconds behind the first one; asked in the order of the plan."""

    def __init__(self, ready: Mapping[UUID, ReadyRule], per_host: int) -> None:
        self._ready = ready
        self._per_host = per_host
        self._begun: Counter[str] = Counter()
        self._ready_s: dict[UUID, float] = {}
        self._unforeseen: dict[UUID, tuple[str, ...]] = {}

    def starts(self, guest: Guest, host: str) -> tuple[float, tuple[str, ...]]:
        """When it starts there, and for whom it waits for a time that nobody can foresee."""
        turn_s = self._begun[host] // self._per_host * LAB_START_S
        self._begun[host] += 1
        before = [other for other in guest.depends_on if other in self._unforeseen]
        start_s = max([turn_s, *(self._ready_s.get(other, 0.0) for other in before)])
        after = tuple(dict.fromkeys(n for other in before for n in self._unforeseen[other]))
        rule = self._ready.get(guest.vm_id)
        foreseen = rule is None or rule.when is ReadyWhen.DELAY
        delay_s = rule.delay_s if rule is not None else 0.0
        self._ready_s[guest.vm_id] = start_s + LAB_START_S + delay_s
        self._unforeseen[guest.vm_id] = after if foreseen else (*after, guest.name)
        return start_s, after

    def waits(self, guest: Guest) -> None:
        """It has no place yet."""
        self._unforeseen[guest.vm_id] = (guest.name,)

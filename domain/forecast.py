"""What the loss of a host would mean now: which VMs come back where and when, and which wait.

Pure: the planner that a recovery uses, asked before there is one. The times are what the cluster's
profile predicts from the fault to the first VM (`domain.profiles.predict`), and one start more for
each VM that has to be ready before: VMs that wait for nobody start side by side. What else the
cluster is at then is not foreseen.
"""

from collections.abc import Mapping
from uuid import UUID

from domain.affinity import Affinity
from domain.base import Frozen
from domain.placement import Guest, NoRoom, Room, Told, place_and_tell
from domain.profiles import LAB_START_S, Prediction
from domain.recovery import restart_sequence


class Back(Frozen):
    """One VM that comes back: where, and so many seconds after each kind of fault."""

    vm_id: UUID
    name: str
    host: str
    power_cut_s: float
    isolation_s: float
    gave_way: tuple[str, ...] = ()  # soft rules that its place would break


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
) -> Forecast:
    """What becomes of a host's `guests` on the `rooms` that are left without it.

    Invalid (`DEPENDENCY_CYCLE`) when VMs wait for each other.
    """
    wanted = restart_sequence(tuple(guest for guest in guests if guest.protected))
    depths = _depths(wanted)
    back: list[Back] = []
    waits: list[Waits] = []
    for told in place_and_tell(wanted, rooms, affinity):
        if isinstance(told.choice, NoRoom):
            waits.append(
                Waits(vm_id=told.guest.vm_id, name=told.guest.name, why=told.choice.detail)
            )
        else:
            back.append(_back(told, told.choice.gave_way, depths, prediction))
    return Forecast(
        back=tuple(sorted(back, key=lambda one: (one.power_cut_s, one.name))),
        waits=tuple(sorted(waits, key=lambda one: one.name)),
        stay_down=tuple(sorted(guest.name for guest in guests if not guest.protected)),
    )


def _back(
    told: Told, gave_way: tuple[str, ...], depths: Mapping[UUID, int], prediction: Prediction
) -> Back:
    assert told.host is not None
    later_s = depths[told.guest.vm_id] * LAB_START_S
    return Back(
        vm_id=told.guest.vm_id,
        name=told.guest.name,
        host=told.host,
        power_cut_s=prediction.power_cut_s + later_s,
        isolation_s=prediction.isolation_s + later_s,
        gave_way=gave_way,
    )


def _depths(sequence: tuple[Guest, ...]) -> dict[UUID, int]:
    """How many starts, one after the other, come before each VM's; `sequence` is in that order."""
    depths: dict[UUID, int] = {}
    for guest in sequence:
        before = [depths[other] for other in guest.depends_on if other in depths]
        depths[guest.vm_id] = 1 + max(before) if before else 0
    return depths

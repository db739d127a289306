"""What the readings of a host's fence devices say together."""

from domain.inventory import PowerReading
from domain.orders import Evidence


def words_of(readings: tuple[Evidence, ...]) -> list[tuple[int, PowerReading]]:
    """Level and word of each device."""
    return [(fact.level, PowerReading(fact.verdict)) for fact in readings]


def with_witnesses(
    now: tuple[Evidence, ...], earlier: tuple[Evidence, ...]
) -> tuple[Evidence, ...]:
    """What devices say now, beside the word of one that read off before and says nothing now.

    A controller fed by an outlet that is cut at a later level falls silent by that very cut.
    """
    off = {fact.device: fact for fact in earlier if fact.verdict is PowerReading.OFF}
    silent = PowerReading.UNKNOWN
    return tuple(off.get(f.device, f) if f.verdict is silent else f for f in now)


def takes_another(now: tuple[Evidence, ...], level: int | None) -> bool:
    """Whether waiting is no use: this level reads off and one that follows has to as well."""
    here = [fact.verdict is PowerReading.OFF for fact in now if fact.level == level]
    return bool(here) and all(here) and any(fact.level > (level or 0) for fact in now)


def said_by(readings: tuple[Evidence, ...]) -> str:
    """As a person reads it."""
    return ", ".join(f"{fact.device}: {fact.verdict}" for fact in readings)

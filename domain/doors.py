"""Whether the door of a host that is held to be dead speaks against its death certificate.

What would refuse the certificate now voids it: a door that is not silent while the power reads off.
A door alone says nothing. A person may have switched the machine on, and a new boot opens its
doors, too, seconds before libvirt there can say that it lacks the old mark; then its power reads
on, or nobody can tell. So the power has to read off in between two knocks that both found life:
no machine is switched off, on again and up within one such look. Then the power that is read is not
that of whoever answers, and the certificate rests on nothing.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from domain.inventory import PowerReading
from domain.readings import Knock
from domain.topology import proven_level

KNOCK = "libvirt_knock"
"""The kind of evidence that a knock leaves; its detail is the address whose door was silent."""


class Meaning(StrEnum):
    """What one look at the door of a host that is held to be dead has shown."""

    NOTHING = "nothing"  # no life, or the door could not be tried
    SWITCHED_ON = "switched_on"  # its power reads on: the life may be that of a new boot
    UNTOLD = "untold"  # no level of its devices reads off: nobody tells which boot it is
    ALIVE = "alive"  # it shows life while its power reads off: the certificate is void


def meaning(
    before: Knock | None, words: Iterable[tuple[int, PowerReading]], after: Knock | None
) -> Meaning:
    """What a knock, then the level and the word of each device, then a second knock mean.

    None: that knock could not be tried, or there was no reason to.
    """
    said = tuple(words)
    if not shows_life(before):
        return Meaning.NOTHING
    if any(word is PowerReading.ON for _level, word in said):
        return Meaning.SWITCHED_ON
    if proven_level(said) is None:
        return Meaning.UNTOLD
    return Meaning.ALIVE if shows_life(after) else Meaning.NOTHING


def shows_life(knock: Knock | None) -> bool:
    """Whether what came back from a door comes only from the living."""
    return knock not in (None, Knock.SILENT)


def was_silent(evidence: Iterable[Mapping[str, Any]], uri: str) -> bool:
    """Whether a certificate rests on the silence of the door at this address.

    A host that is down may be given the address of another machine; that one's door says nothing.
    """
    return any(fact.get("kind") == KNOCK and fact.get("detail") == uri for fact in evidence)

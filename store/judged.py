"""What a fence was decided on, as conditions of the statement that claims it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from store.observations import HEARD
from store.schema import host
from store.schema_ha import monitor, observation


class Judged(NamedTuple):
    """What a fence was decided on.

    heard   the round in which the host had last answered each monitor
    eyes    the monitors whose silence it rests on
    """

    heard: Mapping[str, int]
    eyes: tuple[str, ...]


def still_silent(eyes: tuple[str, ...], approved: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether every monitor that the fence of a host rests on lives, and still does not hear it.

    Each has to see another host: else its silence is its own, unless a person has approved.
    """
    silent = (
        sa.select(sa.func.count())
        .select_from(observation.join(monitor, monitor.c.name == observation.c.monitor))
        .where(
            observation.c.host_id == host.c.id,
            observation.c.monitor.in_(eyes),
            observation.c.verdict.not_in(HEARD),
            monitor.c.gone_at.is_(None),
        )
    )
    seeing = silent.where(observation.c.others_seen > 0, monitor.c.blind_at.is_(None))
    if not eyes:
        return sa.false()  # who rests on nobody's word has no right to cut
    return sa.and_(
        silent.correlate(host).scalar_subquery() == len(eyes),
        sa.or_(
            seeing.correlate(host).scalar_subquery() == len(eyes),
            approved,
        ),
    )


def pairs(heard: Mapping[str, int]) -> tuple[Any, ...]:
    """Each monitor and its number, one behind the other."""
    return tuple(each for pair in sorted(heard.items()) for each in pair)


def heard_since(host_id: Any, *rounds: Any) -> sa.ColumnElement[bool]:
    """Whether a monitor's last answer of a host is another than the one that was known."""
    known = (
        sa.and_(observation.c.monitor == name, observation.c.heard_sequence == sequence)
        for name, sequence in zip(rounds[::2], rounds[1::2], strict=True)
    )
    return sa.exists().where(
        observation.c.host_id == host_id,
        observation.c.heard_sequence.is_not(None),
        ~sa.or_(sa.false(), *known),
    )

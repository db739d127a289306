"""When a hung libvirtd may be restarted over SSH, and every reason why not."""

from typing import Any

import pytest

from domain.inventory import HostState, PowerReading
from domain.readings import Knock
from domain.soft_step import (
    AGAIN_S,
    TRIES_MAX,
    WINDOW_S,
    Hung,
    SoftFacts,
    next_try_in_s,
    why_not,
)

pytestmark = pytest.mark.unit
HUNG = Hung(epoch=3, silent_s=15.0, door=Knock.OPEN, power=(PowerReading.ON,), reported_by="m1")


def facts(hung: dict[str, Any] | None = None, **changes: Any) -> SoftFacts:
    """A host that hangs, where nothing speaks against its soft step."""
    told = HUNG.model_copy(update=hung or {})
    given: dict[str, Any] = {"host": "h1", "state": HostState.CONNECTING, "epoch": 3}
    return SoftFacts(**given | {"access": True, "hung": told, "silence_s": 15.0} | changes)


def codes(found: SoftFacts) -> list[str]:
    return [no.code for no in why_not(found)]


def test_a_host_that_hangs_and_may_be_reached_is_restarted() -> None:
    assert codes(facts()) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("NO_SSH_ACCESS", facts(access=False)),
        ("MIGRATIONS_UNDER_WAY", facts(moving=("db",))),
        ("DISARMED", facts(armed=False)),
        ("SOFT_STEP_OFF", facts(enabled=False)),
        ("NOT_HUNG", facts(state=HostState.UP)),
        ("NOT_HUNG", facts(state=HostState.MAINTENANCE)),
        ("NOT_HUNG", facts(state=HostState.PREPARING_MAINTENANCE)),
        ("NOT_HUNG", facts(epoch=4)),
        ("DOOR_NOT_OPEN", facts({"door": Knock.SILENT})),
        ("DOOR_NOT_OPEN", facts({"door": Knock.REFUSED})),
        ("DOOR_NOT_OPEN", facts({"door": Knock.ANSWERS})),
        ("SILENT_TOO_SHORT", facts({"silent_s": 14.9})),
        ("HEARD_BY_OTHERS", facts(hearing=("m2",))),
        ("POWER_READS_OFF", facts({"power": (PowerReading.ON, PowerReading.OFF)})),
        ("GUESTS_WERE_MISSING", facts(lost_guests=True)),
        ("TRIED_JUST_NOW", facts(tries_ago_s=(AGAIN_S - 1,))),
        ("TRIES_SPENT", facts(tries_ago_s=(900.0, 1000.0, 2000.0))),
    ],
)
def test_each_reason_alone_is_enough_and_says_what_to_do(code: str, found: SoftFacts) -> None:
    (no,) = why_not(found)
    assert no.code == code
    assert no.detail
    assert no.next_step


def test_all_reasons_are_told_at_once() -> None:
    assert codes(facts(access=False, armed=False, tries_ago_s=(1.0,))) == [
        "NO_SSH_ACCESS",
        "DISARMED",
        "TRIED_JUST_NOW",
    ]


def test_a_person_is_held_to_what_is_safe_alone() -> None:
    person = facts(armed=False, enabled=False, state=HostState.UP, tries_ago_s=(1.0, 2.0, 3.0))
    assert codes(person.model_copy(update={"hung": None})) == []
    unsafe = person.model_copy(update={"hung": None, "access": False, "moving": ("db",)})
    assert codes(unsafe) == ["NO_SSH_ACCESS", "MIGRATIONS_UNDER_WAY"]


def test_the_wait_doubles_and_ends_when_the_window_has_room_again() -> None:
    assert next_try_in_s(()) == 0
    assert next_try_in_s((10.0,)) == AGAIN_S - 10
    assert next_try_in_s((AGAIN_S,)) == 0
    assert next_try_in_s((10.0, 100.0)) == 2 * AGAIN_S - 10
    spent = (10.0, 100.0, 400.0)
    assert len(spent) == TRIES_MAX
    assert next_try_in_s(spent) == WINDOW_S - 400
    assert next_try_in_s((10.0, WINDOW_S + 1)) == AGAIN_S - 10, (
        "what left the window counts no more"
    )


def test_a_no_that_time_alone_ends_says_how_long() -> None:
    (no,) = why_not(facts(tries_ago_s=(20.0,)))
    assert no.wait_s == AGAIN_S - 20
    assert "1 of 3 times" in no.detail

"""Why a VM whose guest ended, hangs or is paused was seen to in this way, and in no other."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ended_guests import EndedGuest, PastEnd, Verdict, judge
from domain.explain import Explanation, Rule
from domain.explain_guests import OPTIONS, Trouble, explain_alive, explain_verdict
from domain.hung_guests import judge_hung
from domain.inventory import OnGuestShutdown, OnHang, OnIoError
from domain.paused_guests import judge_paused
from domain.readings import StateReason
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
JUST_NOW = PastEnd(host_id=id_of("h1"), host_name="h1", at=NOW - timedelta(seconds=30))


def facts(**changes: Any) -> EndedGuest:
    return EndedGuest(
        **{
            "vm": "db",
            "host_id": id_of("h1"),
            "host_name": "h1",
            "reason": StateReason.CRASHED,
            "wanted": True,
            "protected": True,
            "on_guest_shutdown": OnGuestShutdown.STAY,
            "max_restart": 1,
            "max_relocate": 1,
            "hosts": (id_of("h1"), id_of("h2")),
            "now": NOW,
        }
        | changes
    )


def judged(of: EndedGuest, trouble: Trouble, paused_s: float) -> Verdict:
    if trouble is Trouble.ENDED:
        return judge(of)
    return judge_hung(of) if trouble is Trouble.HUNG else judge_paused(of, paused_s)


def told(trouble: Trouble, paused_s: float = 0.0, **changes: Any) -> Explanation:
    of = facts(**changes)
    return explain_verdict(of, judged(of, trouble, paused_s), trouble, paused_s)


def against(explanation: Explanation) -> dict[str, str]:
    return {one.option: one.why for one in explanation.rejected}


def test_a_crash_is_restarted_since_it_is_wanted_protected_and_within_its_limits() -> None:
    why = told(Trouble.ENDED)
    assert (why.chosen, why.rule) == ("restart", Rule.WANTED_AND_PROTECTED)
    assert why.why.endswith("restarted 0 times in 10 min, 0 of 1 there")
    assert against(why) == {
        "leave down": "it is wanted and protected",
        "wait": "no host shows a copy of it, and its limits allow another try",
    }


SHUT = {"reason": StateReason.SHUTDOWN}
SPENT = {"past": (JUST_NOW,), "hosts": (id_of("h1"),)}
PAUSED = {"reason": StateReason.IO_ERROR}
HANGS = {"on_hang": OnHang.RESTART}


@pytest.mark.parametrize(
    ("trouble", "paused_s", "changes", "chosen", "rule", "not_chosen", "why_not"),
    [
        (Trouble.ENDED, 0, SHUT, "leave down", "VM_POLICY", "restart", "on_guest_shutdown is stay"),
        (Trouble.ENDED, 0, {"wanted": False}, "leave down", "NOT_WANTED", "restart", "was wanted"),
        (Trouble.ENDED, 0, {"protected": False}, "leave down", "NOT_PROTECTED", "restart", "not p"),
        (Trouble.ENDED, 0, {"armed": False}, "wait", "DISARMED", "restart", "switched off"),
        (Trouble.ENDED, 0, {"elsewhere": ("h2",)}, "wait", "MAY_LIVE_ELSEWHERE", "restart", "disk"),
        (Trouble.ENDED, 0, SPENT, "wait", "RESTARTS_SPENT", "restart", "as its limits allow"),
        (Trouble.PAUSED, 9, PAUSED, "let it go on", "PAUSE_LOSES_NOTHING", "end it", "is resume"),
        (
            *(Trouble.PAUSED, 9, PAUSED | {"on_io_error": OnIoError.KILL}),
            *("let it go on", "PAUSE_LOSES_NOTHING", "end it", "for 9 s, and is ended after 80"),
        ),
        (
            *(Trouble.PAUSED, 90, PAUSED | {"on_io_error": OnIoError.KILL}),
            *("end it", "VM_POLICY", "let it go on", "paused for 90 s, and may be for 80"),
        ),
        (
            *(Trouble.PAUSED, 9, PAUSED | {"on_io_error": OnIoError.LEAVE_PAUSED}),
            *("leave it paused", "VM_POLICY", "let it go on", "a person sees to it"),
        ),
        (
            Trouble.HUNG,
            0,
            {},
            "leave it as it is",
            "VM_POLICY",
            "end and restart",
            "on_hang is off",
        ),
        (Trouble.HUNG, 0, HANGS, "end and restart", "VM_POLICY", "leave it as it is", "restart"),
        (
            *(Trouble.HUNG, 0, HANGS | {"protected": False}),
            *("leave it as it is", "NOT_PROTECTED", "end and restart", "not protected"),
        ),
        (Trouble.HUNG, 0, HANGS | SPENT, "wait", "RESTARTS_SPENT", "end and restart", "limits"),
    ],
)
def test_each_policy_and_limit_is_told_as_the_rule_and_against_the_rest(
    trouble: Trouble,
    paused_s: float,
    changes: dict[str, Any],
    chosen: str,
    rule: str,
    not_chosen: str,
    why_not: str,
) -> None:
    why = told(trouble, paused_s, **changes)
    assert (why.chosen, why.rule) == (chosen, rule)
    assert why_not in against(why)[not_chosen]


def test_a_guest_that_was_found_at_work_is_not_started_beside_itself() -> None:
    why = explain_alive(Verdict(move="nothing", why="db runs on h1 after all"))
    assert (why.chosen, why.rule) == ("leave it as it is", Rule.GUEST_RUNS)
    assert against(why) == {"restart": "what runs is not started a second time"}


@given(
    trouble=st.sampled_from(Trouble),
    paused_s=st.sampled_from((0.0, 79.0, 81.0)),
    reason=st.sampled_from((None, *StateReason)),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    policies=st.tuples(
        st.sampled_from(OnGuestShutdown), st.sampled_from(OnIoError), st.sampled_from(OnHang)
    ),
    elsewhere=st.sampled_from(((), ("h2",))),
    past=st.integers(0, 3),
)
def test_every_verdict_has_one_rule_and_a_reason_against_each_other_option(
    trouble: Trouble,
    paused_s: float,
    reason: StateReason | None,
    flags: tuple[bool, bool, bool],
    policies: tuple[OnGuestShutdown, OnIoError, OnHang],
    elsewhere: tuple[str, ...],
    past: int,
) -> None:
    wanted, protected, armed = flags
    shutdown, io_error, hang = policies
    why = told(
        trouble,
        paused_s,
        reason=reason,
        wanted=wanted,
        protected=protected,
        armed=armed,
        on_guest_shutdown=shutdown,
        on_io_error=io_error,
        on_hang=hang,
        elsewhere=elsewhere,
        past=(JUST_NOW,) * past,
    )
    assert why.chosen in OPTIONS[trouble]
    assert {why.chosen, *against(why)} == set(OPTIONS[trouble])
    assert all(against(why).values())
    if not armed:
        assert (why.chosen, why.rule) == ("wait", Rule.DISARMED)

"""The guard against fencing storms: each reason alone with its numbers, then together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.profiles import Policy, Profile, policy_for
from domain.storm import FenceFacts, HoldReason, Vote, answered, speaking, why_held
from tests.unit.domain.builders import budget, fence_facts, vote

pytestmark = pytest.mark.unit

POLICY = Policy()


def reasons(facts: FenceFacts, policy: Policy = POLICY) -> list[HoldReason]:
    return [held.reason for held in why_held(facts, policy)]


def test_one_silent_host_of_three_may_be_fenced() -> None:
    assert why_held(fence_facts(), POLICY) == ()


@pytest.mark.parametrize(
    ("facts", "reason", "detail"),
    [
        (fence_facts(armed=False), HoldReason.DISARMED, "automatic action is disarmed"),
        (fence_facts(own_host=True), HoldReason.OWN_HOST, "the engine itself runs on h1"),
        (
            fence_facts(devices=0),
            HoldReason.NO_FENCE_DEVICE,
            "h1 has no fence device, so it cannot be proven off",
        ),
        (
            fence_facts(vote("m1"), vote("m2", fresh=False)),
            HoldReason.VOTES_MISSING,
            "1 of 2 monitors gave a fresh vote; not m2",
        ),
        (
            fence_facts(vote("m3", silent=False), vote("m1", silent=False), vote("m2")),
            HoldReason.VOTES_DISAGREE,
            "h1 still answers m1, m3, and is silent to m2",
        ),
        (
            fence_facts(vote("m1"), vote("m2", silent_s=1.2)),
            HoldReason.SILENT_TOO_SHORT,
            "h1 has been silent for 1.2 s to m2, of the 15 s that it takes",
        ),
        (
            fence_facts(vote("m2", others_seen=0), vote("m1")),
            HoldReason.MANY_SILENT,
            "m2 sees no other host either, so it mistrusts itself",
        ),
        (
            fence_facts(vote("m2", warm=False), vote("m1", warm=False), vote("m3")),
            HoldReason.VIEW_COLD,
            "m1, m2 began to watch h1 too recently to judge",
        ),
        (
            fence_facts(hosts=8, hosts_silent=5),
            HoldReason.MANY_SILENT,
            "5 of 8 hosts are silent: our own network first",
        ),
        (
            fence_facts(fences_in_window=1),
            HoldReason.BUDGET_SPENT,
            "1 of 1 fences in the last 300 s are spent in cluster c1",
        ),
    ],
    ids=lambda value: value.value if isinstance(value, HoldReason) else "",
)
def test_each_reason_holds_a_fence_alone_and_says_its_numbers(
    facts: FenceFacts, reason: HoldReason, detail: str
) -> None:
    (held,) = why_held(facts, POLICY)
    assert (held.reason, held.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("hosts", "hosts_silent", "held"),
    [
        (1, 1, True),
        (2, 1, True),
        (2, 2, True),
        (3, 1, False),
        (3, 2, True),
        (3, 3, True),
        (4, 1, False),
        (4, 2, True),
        (4, 3, True),
        (5, 2, False),
        (5, 3, True),
    ],
)
def test_half_or_more_silent_hosts_hold_the_fence(
    hosts: int, hosts_silent: int, held: bool
) -> None:
    facts = fence_facts(hosts=hosts, hosts_silent=hosts_silent)
    assert reasons(facts) == ([HoldReason.MANY_SILENT] if held else [])


def test_the_only_host_in_service_is_not_cut_for_a_silence_that_may_be_ours() -> None:
    held = reasons(fence_facts(vote(others_seen=0), hosts=1, hosts_silent=1))
    assert held == [HoldReason.MANY_SILENT, HoldReason.MANY_SILENT]


def test_a_missing_vote_is_not_silence_even_when_no_monitor_is_left() -> None:
    nobody = fence_facts().model_copy(update={"votes": ()})
    (held,) = why_held(nobody, POLICY)
    assert held.detail == "0 of 0 monitors gave a fresh vote"
    assert held.reason is HoldReason.VOTES_MISSING


NEW: dict[str, Any] = {"warm": False, "fresh": False, "others_seen": 0}
FORMER: dict[str, Any] = {"assigned": False}


@pytest.mark.parametrize(
    ("votes", "held"),
    [
        ((vote("m1"), vote("m2", **NEW)), [HoldReason.VOTES_MISSING]),
        ((vote("m1"), vote("m2", warm=False)), [HoldReason.VIEW_COLD]),
        # Who watched the host before speaks until the new one knows it.
        ((vote("m1"), vote("m2", **NEW), vote("m3", **FORMER)), []),
        ((vote("m1"), vote("m2", warm=False), vote("m3", **FORMER)), []),
        ((vote("m2", **NEW), vote("m3", **FORMER)), []),
        ((vote("m1", **NEW), vote("m2", **NEW), vote("m3", **FORMER)), [HoldReason.VOTES_MISSING]),
        # Not one that is blind, cold or late itself, and never for one that knows the host.
        (
            (vote("m2", **NEW), vote("m3", others_seen=0, **FORMER)),
            [HoldReason.VOTES_MISSING],
        ),
        ((vote("m2", **NEW), vote("m3", warm=False, **FORMER)), [HoldReason.VOTES_MISSING]),
        ((vote("m2", **NEW), vote("m3", fresh=False, **FORMER)), [HoldReason.VOTES_MISSING]),
        (
            (vote("m1"), vote("m2", fresh=False), vote("m3", **FORMER)),
            [HoldReason.VOTES_MISSING],
        ),
        # Whoever hears the host is heard, its own or not.
        ((vote("m1"), vote("m3", silent=False, **FORMER)), [HoldReason.VOTES_DISAGREE]),
        # Who only watches beside them is not waited for, blind or not.
        ((vote("m1"), vote("m3", fresh=False, **FORMER)), []),
        ((vote("m1"), vote("m3", others_seen=0, **FORMER)), []),
        ((vote("m3", **FORMER),), [HoldReason.VOTES_MISSING]),
    ],
)
def test_every_place_of_a_host_has_to_be_filled_by_one_that_knows_it(
    votes: tuple[Vote, ...], held: list[HoldReason]
) -> None:
    assert reasons(fence_facts(*votes)) == held


def test_a_fence_rests_on_its_eyes_and_on_those_that_speak_for_new_ones() -> None:
    m1, m3 = vote("m1"), vote("m3", assigned=False)
    assert speaking((m1, m3)) == ("m1",)
    assert speaking((m1, vote("m2", **NEW), m3)) == ("m1", "m3")
    assert speaking((m1, vote("m2", silent=False))) == ("m1",)


def test_a_host_is_back_once_it_answers_everybody_that_can_tell() -> None:
    hears = vote("m1", silent=False)
    assert answered((hears,))
    assert not answered((vote("m1"),))
    assert not answered((hears, vote("m2")))
    # One that hears nothing at all, or is late, cannot tell.
    assert answered((hears, vote("m2", others_seen=0)))
    assert answered((hears, vote("m2", fresh=False)))
    assert not answered((vote("m1", fresh=False, silent=False),))


def test_a_vote_that_is_old_says_nothing_about_who_still_answers() -> None:
    stale = fence_facts(vote("m1", fresh=False, silent=False), vote("m2"))
    assert reasons(stale) == [HoldReason.VOTES_MISSING]


def test_one_monitor_that_hears_the_host_outvotes_the_others() -> None:
    votes = [vote(f"m{n}") for n in range(9)]
    assert reasons(fence_facts(*votes)) == []
    assert reasons(fence_facts(*votes, vote("m9", silent=False))) == [HoldReason.VOTES_DISAGREE]


@pytest.mark.parametrize(("spent", "allowed", "held"), [(0, 2, 0), (1, 2, 0), (2, 2, 1), (3, 2, 1)])
def test_the_budget_holds_when_as_many_were_fenced_as_the_policy_allows(
    spent: int, allowed: int, held: int
) -> None:
    found = why_held(fence_facts(fences_in_window=spent, fences_max=allowed), POLICY)
    text = f"{spent} of {allowed} fences in the last 300 s are spent in cluster c1"
    assert [h.detail for h in found] == [text] * held


def test_a_budget_of_none_leaves_every_fence_to_a_person() -> None:
    assert reasons(fence_facts(fences_max=0)) == [HoldReason.BUDGET_SPENT]


def test_careful_cuts_nothing_that_its_devices_cannot_prove_off() -> None:
    careful = policy_for(Profile.CAREFUL)
    (held,) = why_held(fence_facts(devices=1), careful)
    assert held.reason is HoldReason.PROOFS_MISSING
    assert held.detail == "h1 has 1 of the 2 fence devices that prove it off"
    assert reasons(fence_facts(devices=0), careful) == [HoldReason.NO_FENCE_DEVICE]
    assert reasons(fence_facts(devices=2), careful) == []


def test_every_reason_is_named_at_once_when_everything_is_wrong() -> None:
    facts = fence_facts(
        vote("m1", warm=False, others_seen=0),
        armed=False,
        own_host=True,
        devices=0,
        hosts=4,
        hosts_silent=4,
        fences_in_window=7,
    )
    assert reasons(facts) == [
        HoldReason.DISARMED,
        HoldReason.OWN_HOST,
        HoldReason.NO_FENCE_DEVICE,
        HoldReason.MANY_SILENT,
        HoldReason.VIEW_COLD,
        HoldReason.MANY_SILENT,
        HoldReason.BUDGET_SPENT,
    ]


counts = st.integers(min_value=0, max_value=6)
any_votes = st.lists(
    st.builds(
        Vote,
        monitor=st.sampled_from(["m1", "m2", "m3"]),
        fresh=st.booleans(),
        silent=st.booleans(),
        others_seen=counts,
        warm=st.booleans(),
    ),
    max_size=4,
)


@given(
    facts=st.builds(
        FenceFacts,
        host=st.just("h1"),
        armed=st.booleans(),
        own_host=st.booleans(),
        devices=counts,
        hosts=st.integers(min_value=1, max_value=6),
        hosts_silent=counts,
        budgets=counts.map(lambda spent: (budget(spent=spent, most=1),)),
        votes=any_votes.map(tuple),
    ),
    profile=st.sampled_from(Profile),
)
def test_power_is_cut_only_when_every_condition_holds(facts: FenceFacts, profile: Profile) -> None:
    policy = policy_for(profile)
    all_agree = facts.votes != () and all(v.fresh and v.silent and v.warm for v in facts.votes)
    lonely = facts.hosts == 1
    allowed = (
        facts.armed
        and not facts.own_host
        and facts.devices >= (2 if profile is Profile.CAREFUL else 1)
        and all_agree
        and (lonely or all(v.others_seen > 0 for v in facts.votes))
        and (lonely or facts.hosts_silent < facts.hosts / 2)
        and not any(one.spent for one in facts.budgets)
    )
    assert (why_held(facts, policy) == ()) is allowed

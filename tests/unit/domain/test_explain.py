"""Why a decision came out as it did: its rule, and a reason against each alternative."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.affinity import Affinity, AffinityRule
from domain.explain import Explanation, Rule, explain_move, explain_proof
from domain.explain_vms import (
    FATES,
    REJECTED_MAX,
    explain_fate,
    explain_lost_on_the_way,
    explain_place,
    explain_target,
)
from domain.inventory import CONFIRMATION, Confirmation, PowerReading
from domain.orders import Evidence
from domain.placement import (
    Guest,
    PassedOver,
    Room,
    place_again_and_tell,
    place_all,
    place_and_tell,
)
from domain.profiles import Policy
from domain.recovery import Fate, Move, RecoveryFacts, decide, fate_of
from domain.storage_lease import STORAGE_LEASE
from domain.storm import Approval
from domain.unplaced import runs_elsewhere
from tests.unit.domain.builders import (
    OFF,
    ON,
    UNKNOWN,
    fence_facts,
    guest,
    id_of,
    recovery_facts,
    room,
    vote,
)

pytestmark = pytest.mark.unit

POLICY = Policy()
WORD = Evidence(
    kind=CONFIRMATION,
    device="anna",
    verdict=Confirmation.DEAD,
    took_s=0,
    at="2026-11-27T09:00:00+00:00",
    detail="unplugged",
)


def explained(facts: RecoveryFacts) -> Explanation:
    return explain_move(facts, decide(facts, POLICY), POLICY)


def confirmed(facts: RecoveryFacts) -> RecoveryFacts:
    return facts.model_copy(update={"confirmation": WORD})


def against(told: Explanation) -> dict[str, str]:
    return {rejected.option: rejected.why for rejected in told.rejected}


@pytest.mark.parametrize(
    ("facts", "chosen", "rule"),
    [
        (recovery_facts(OFF, answers=True), Move.RETURN, Rule.LIFE_WINS),
        (recovery_facts(OFF), Move.ACCEPT, Rule.PROOF_NEEDS_NO_CUT),
        (confirmed(recovery_facts(UNKNOWN)), Move.CONFIRMED, Rule.WORD_OF_A_PERSON),
        (recovery_facts(ON), Move.FENCE, Rule.SILENT_AND_ALLOWED),
        (recovery_facts(), Move.HOLD, Rule.GUARD_HOLDS),
    ],
    ids=lambda value: value.name if isinstance(value, Move) else "",
)
def test_each_move_names_its_rule_and_a_reason_against_every_other(
    facts: RecoveryFacts, chosen: Move, rule: Rule
) -> None:
    told = explained(facts)
    assert (told.chosen, told.rule) == (chosen, rule)
    assert set(against(told)) == set(Move) - {chosen}
    assert all(against(told).values())


def test_a_fence_says_that_the_controllers_prove_nothing_yet() -> None:
    told = against(explained(recovery_facts(ON, UNKNOWN)))
    assert told[Move.ACCEPT] == (
        "its devices read 1 on, 1 unknown; a proof is a whole level of off, 1 in all, and no on"
    )
    assert told[Move.RETURN] == "none of 1 fresh votes has heard h1 since it was reported"
    assert told[Move.CONFIRMED] == "nobody has confirmed that it is dead"
    assert told[Move.HOLD] == "the storm guard has no reason to wait"


def test_a_hold_keeps_the_codes_of_what_it_waits_for() -> None:
    held = explained(recovery_facts(ON, fence=fence_facts(vote(warm=False), armed=False)))
    assert held.inputs["held"] == ["DISARMED", "VIEW_COLD"]
    assert "held" not in explained(recovery_facts(answers=True)).inputs


def test_a_hold_says_with_its_numbers_why_the_power_is_not_cut() -> None:
    facts = recovery_facts(ON, fence=fence_facts(hosts=4, hosts_silent=2))
    told = explained(facts)
    assert told.why == "2 of 4 hosts are silent: our own network first"
    assert against(told)[Move.FENCE] == told.why
    assert told.inputs["hosts_silent"] == 2


def test_a_proof_says_which_reasons_to_wait_it_makes_irrelevant() -> None:
    facts = recovery_facts(OFF, fence=fence_facts(vote(warm=False), hosts_silent=3))
    assert against(explained(facts))[Move.HOLD] == (
        "VIEW_COLD, MANY_SILENT hold a cut of power, not a proven death"
    )


def test_a_proof_that_a_firm_reason_holds_back_says_so() -> None:
    told = explained(recovery_facts(OFF, fence=fence_facts(armed=False)))
    assert told.chosen == Move.HOLD
    assert against(told)[Move.ACCEPT] == (
        "its devices read off (1 off), but automatic action is disarmed"
    )


def test_an_approval_says_whom_it_overrules_and_with_which_numbers() -> None:
    leave = Approval(by="ann", reason="the rack burns")
    facts = recovery_facts(ON, fence=fence_facts(hosts_silent=2, approval=leave))
    told = explained(facts)
    assert told.chosen == Move.FENCE
    assert against(told)[Move.HOLD] == (
        "ann overrules the storm guard: 2 of 3 hosts are silent: our own network first"
    )
    assert told.inputs["approved_by"] == "ann"


def test_a_word_that_a_device_contradicts_is_told_with_the_name_behind_it() -> None:
    told = explained(confirmed(recovery_facts(ON)))
    assert against(told)[Move.CONFIRMED] == "anna says that it is dead, but a device reads on"


@given(
    readings=st.lists(st.sampled_from(PowerReading), max_size=3),
    answers=st.booleans(),
    word=st.booleans(),
    armed=st.booleans(),
    silent=st.integers(0, 3),
    spent=st.integers(0, 2),
    fresh=st.booleans(),
)
def test_whatever_is_decided_can_be_told(
    readings: list[PowerReading],
    answers: bool,
    word: bool,
    armed: bool,
    silent: int,
    spent: int,
    fresh: bool,
) -> None:
    fence = fence_facts(
        vote(fresh=fresh),
        armed=armed,
        devices=len(readings),
        hosts_silent=silent,
        fences_in_window=spent,
    )
    facts = recovery_facts(*readings, answers=answers, fence=fence)
    told = explained(confirmed(facts) if word else facts)
    assert told.why
    assert all(rejected.why for rejected in told.rejected)


def placed(*guests: Guest, rooms: tuple[Room, ...], rules: tuple[AffinityRule, ...] = ()):  # type: ignore[no-untyped-def]
    return [explain_place(told) for told in place_and_tell(guests, rooms, Affinity(rules=rules))]


def test_a_place_says_why_each_other_host_was_passed_over() -> None:
    never = AffinityRule(
        name="no-h4", together=False, hard=True, vm_ids=(id_of("db"),), host_ids=(id_of("h4"),)
    )
    softly = AffinityRule(
        name="not-h5", together=False, hard=False, vm_ids=(id_of("db"),), host_ids=(id_of("h5"),)
    )
    rooms = (
        room("h1", memory_mib=512),
        room("h2", memory_mib=64),
        room("h3", memory_mib=256),
        room("h4", memory_mib=4096),
        room("h5", memory_mib=4096),
        room("h6", memory_mib=512, vms=2),
        room("h7", memory_mib=512),
    )
    (told,) = placed(guest("db"), rooms=rooms, rules=(never, softly))
    assert (told.chosen, told.rule) == ("h1", Rule.BEST_HOST)
    assert told.why == (
        "512 MiB were free for the 128 it needs, and no host that its rules allow was better"
    )
    assert against(told) == {
        "h2": "64 MiB are free, 128 are needed",
        "h3": "256 MiB are free, on h1 512",
        "h4": "hard rule no-h4 (never on its hosts) forbids it",
        "h5": "soft rules would give way: not-h5",
        "h6": "as much memory is free as on h1, but it runs 2 VMs to 0",
        "h7": "as good as h1, which comes first by name",
    }


def test_a_vm_without_a_place_is_told_with_the_gap_of_every_host() -> None:
    (told,) = placed(guest("db"), rooms=(room("h1", memory_mib=100), room("h2", memory_mib=64)))
    assert (told.chosen, told.rule) == ("none", Rule.NO_HOST)
    assert told.why == "db needs 128 MiB; the largest gap on 2 usable hosts is 100 MiB"
    assert set(against(told)) == {"h1", "h2"}


def test_the_second_vm_is_told_what_the_first_has_left_it() -> None:
    rooms = (room("h1", memory_mib=300), room("h2", memory_mib=250))
    first, second = placed(guest("a"), guest("b"), rooms=rooms)
    assert (first.chosen, second.chosen) == ("h1", "h2")
    assert against(second)["h1"] == "172 MiB are free, on h2 250"


def test_hundreds_of_hosts_are_counted_beyond_the_first() -> None:
    rooms = tuple(room(f"h{number:03}") for number in range(300))
    (told,) = placed(guest("db"), rooms=rooms)
    assert len(told.rejected) == REJECTED_MAX
    assert len(told.rejected) + told.rejected_more == 299


@given(
    sizes=st.lists(st.integers(1, 300), max_size=6),
    memory=st.lists(st.integers(0, 400), max_size=5),
    apart=st.booleans(),
    hard=st.booleans(),
)
def test_telling_changes_no_choice(
    sizes: list[int], memory: list[int], apart: bool, hard: bool
) -> None:
    guests = tuple(guest(f"v{n}", memory_mib=size) for n, size in enumerate(sizes))
    rooms = tuple(room(f"h{n}", memory_mib=size) for n, size in enumerate(memory))
    rules: tuple[AffinityRule, ...] = ()
    if len(guests) > 1:
        ids = tuple(one.vm_id for one in guests[:3])
        rules = (AffinityRule(name="r", together=not apart, hard=hard, vm_ids=ids),)
    affinity = Affinity(rules=rules)
    told = place_and_tell(guests, rooms, affinity)
    assert tuple(one.choice for one in told) == place_all(guests, rooms, affinity)
    assert all(one.why for each in told for one in each.passed_over)


HOSTS = (room("h2", memory_mib=512), room("h3", memory_mib=256), room("h4", memory_mib=1024))


def test_a_start_that_failed_is_told_where_it_is_tried_next_and_where_it_failed() -> None:
    told = explain_place(place_again_and_tell(guest("db"), HOSTS, avoid=(id_of("h4"),)))
    assert told.chosen == "h2"
    assert against(told) == {
        "h3": "256 MiB are free, on h2 512",
        "h4": "its failures keep it away",
    }


def test_a_host_that_is_tried_again_first_is_told_before_better_ones() -> None:
    told = explain_place(place_again_and_tell(guest("db"), HOSTS, prefer_id=id_of("h3")))
    assert told.chosen == "h3"
    assert against(told) == {
        "h2": "h3 is tried again first",
        "h4": "h3 is tried again first",
    }


def test_a_start_at_home_says_so() -> None:
    at_home = guest("db").model_copy(update={"home_id": id_of("h3")})
    told = explain_place(place_again_and_tell(at_home, HOSTS))
    assert told.chosen == "h3"
    assert told.why.startswith("it is its home; 256 MiB were free for the 128 it needs")
    assert against(told) == {"h2": "h3 is its home", "h4": "h3 is its home"}


def test_a_start_that_names_its_host_says_so_and_weighs_no_other() -> None:
    told = explain_place(place_again_and_tell(guest("db"), HOSTS[:1]), named=True)
    assert (told.chosen, told.rule) == ("h2", Rule.HOST_NAMED)
    assert told.why.endswith("the operation names its host")
    assert against(told) == {"any other host": "the operation names its host"}
    big = place_again_and_tell(guest("db", memory_mib=4096), HOSTS[:1])
    none = explain_place(big, named=True)
    assert (none.chosen, none.rule) == ("none", Rule.NO_HOST)
    assert set(against(none)) == {"h2", "any other host"}


def test_a_move_tells_its_source_and_the_hosts_that_none_may_move_to_now() -> None:
    busy = (PassedOver(name="h9", why="2 VMs are being moved there, 2 is the limit"),)
    told = explain_target(place_again_and_tell(guest("db"), HOSTS), "h1", busy, named=False)
    assert (told.question, told.chosen, told.rule) == ("vm_target", "h4", Rule.BEST_HOST)
    assert told.inputs["from"] == "h1"
    assert told.why.endswith("no host that its rules allow was better; h9 may take none now")
    assert against(told) == {
        "h9": "2 VMs are being moved there, 2 is the limit",
        "h2": "512 MiB are free, on h4 1024",
        "h3": "256 MiB are free, on h4 1024",
    }


def test_a_host_that_was_preferred_but_has_no_room_is_passed_over_for_that() -> None:
    big = guest("db", memory_mib=400)
    told = explain_place(place_again_and_tell(big, HOSTS, prefer_id=id_of("h3")))
    assert told.chosen == "h4"
    assert against(told)["h3"] == "256 MiB are free, 400 are needed"


def test_no_place_after_failed_starts_says_where_they_failed() -> None:
    everywhere = tuple(id_of(name) for name in ("h2", "h3", "h4"))
    told = explain_place(place_again_and_tell(guest("db"), HOSTS, avoid=everywhere))
    assert (told.chosen, told.rule) == ("none", Rule.NO_HOST)
    assert "it has failed on h2, h3, h4" in told.why
    assert set(against(told).values()) == {"its failures keep it away"}


@given(
    wanted=st.booleans(), stop_asked=st.booleans(), protected=st.booleans(), turn=st.integers(1, 9)
)
def test_a_vm_comes_back_only_if_nothing_speaks_against_it(
    wanted: bool, stop_asked: bool, protected: bool, turn: int
) -> None:
    fate = fate_of(wanted=wanted, stop_asked=stop_asked, protected=protected)
    told = explain_fate(guest("db"), fate, "running", turn, 9, ())
    assert (told.chosen == "restart") == (wanted and protected and not stop_asked)
    assert told.rule is FATES[fate][0]


def test_a_vm_lost_while_it_was_moved_has_no_turn_and_both_hosts_in_its_reason() -> None:
    told = explain_lost_on_the_way(guest("db"), Fate.RESTART, "h1", "h2")
    assert (told.chosen, told.inputs["run_state"], told.inputs["turn"]) == (
        "restart",
        "migrating",
        0,
    )
    assert told.why == ("it ran, it is wanted and it is protected; it was on its way from h1 to h2")


def test_a_person_s_word_in_a_certificate_is_told_as_that() -> None:
    told = explain_proof("h1", (WORD,), 7, "anna says that it is dead: unplugged")
    assert (told.chosen, told.rule) == ("dead", Rule.WORD_OF_A_PERSON)
    assert (told.inputs["certificate"], told.inputs["grade"]) == (7, "a person's word")


@pytest.mark.parametrize(
    ("facts", "rule", "grade"),
    [
        ((("power_reading", "off"),), Rule.EVERY_PROOF_AGREES, "power read back off"),
        (
            ((STORAGE_LEASE, "proof"), ("power_reading", "unknown")),
            Rule.WATCHDOG_HAS_FIRED,
            "storage lease expired, with an attested watchdog",
        ),
        (((STORAGE_LEASE, "supporting"), (CONFIRMATION, "dead")), Rule.WORD_OF_A_PERSON, None),
    ],
)
def test_what_a_certificate_rests_on_is_told_with_its_grade(
    facts: tuple[tuple[str, Any], ...], rule: Rule, grade: str | None
) -> None:
    evidence = tuple(
        Evidence(kind=kind, device="x", verdict=said, took_s=0.1, at="") for kind, said in facts
    )
    told = explain_proof("h1", evidence, 7, "why")
    assert (told.rule, told.inputs["grade"]) == (rule, grade or "a person's word")


def test_a_vm_that_a_host_shows_already_gets_none_and_the_report_names_that_host() -> None:
    told = explain_place(runs_elsewhere(guest("db"), ("h2", "h3")))
    assert (told.chosen, told.rule, told.inputs["hosts"]) == ("none", Rule.RUNS_ELSEWHERE, 0)
    assert "last poll of h2 and h3 shows a process of db" in told.why
    assert "its start goes on" in told.why

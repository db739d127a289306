"""What the loss of a host would mean: the recovery's own planner, asked before."""

import pytest

from domain.affinity import Affinity
from domain.errors import Invalid
from domain.forecast import Forecast, forecast
from domain.placement import Guest, Room
from domain.profiles import Prediction
from domain.readiness import ReadyRule, ReadyWhen
from tests.unit.domain.builders import guest, room

pytestmark = pytest.mark.unit

SOON = Prediction(power_cut_s=5.0, isolation_s=21.0)


def lost(*guests: Guest, rooms: tuple[Room, ...] = (room("h2"), room("h3"))) -> Forecast:
    return forecast(guests, rooms, Affinity(), SOON)


def test_vms_that_wait_for_nobody_come_back_together_when_the_profile_says() -> None:
    found = lost(guest("db"), guest("web"))
    times = {one.name: (one.host, one.power_cut_s, one.isolation_s) for one in found.back}
    assert times == {"db": ("h2", 5.0, 21.0), "web": ("h3", 5.0, 21.0)}


def test_each_vm_that_has_to_be_ready_before_costs_one_start() -> None:
    found = lost(guest("app", "db"), guest("web", "app"), guest("db"), guest("alone"))
    after = {one.name: one.power_cut_s for one in found.back}
    assert after == {"alone": 5.0, "db": 5.0, "app": 6.0, "web": 7.0}


def test_a_vm_that_depends_on_one_that_runs_elsewhere_waits_for_nobody() -> None:
    (back,) = lost(guest("web", "db-that-runs-on-h2")).back
    assert back.power_cut_s == 5.0


def test_a_delay_is_foreseen_and_what_only_the_guest_can_tell_is_named() -> None:
    rules = {
        guest("db").vm_id: ReadyRule(when=ReadyWhen.DELAY, delay_s=60),
        guest("app", "db").vm_id: ReadyRule(when=ReadyWhen.AGENT),
    }
    wanted = (guest("db"), guest("app", "db"), guest("web", "app"), guest("mail", "web"))
    found = forecast(wanted, (room("h2"),), Affinity(), SOON, rules)
    told = {one.name: (one.power_cut_s, one.after) for one in found.back}
    assert told == {
        "db": (5.0, ()),
        "app": (66.0, ()),
        "web": (67.0, ("app",)),
        "mail": (68.0, ("app",)),
    }


def test_a_vm_behind_one_that_waits_for_room_comes_back_once_that_one_is_there() -> None:
    found = lost(guest("huge", memory_mib=4000), guest("app", "huge"))
    assert [(one.name, one.after) for one in found.back] == [("app", ("huge",))]


def test_on_one_host_as_many_start_at_once_as_the_cluster_allows() -> None:
    wanted = tuple(guest(f"vm{n}", memory_mib=10) for n in range(5))
    found = forecast(wanted, (room("h2"),), Affinity(), SOON, {}, 2)
    assert sorted(one.power_cut_s for one in found.back) == [5.0, 5.0, 6.0, 6.0, 7.0]


def test_no_room_is_told_with_its_numbers_and_unprotected_vms_stay_down() -> None:
    found = lost(
        guest("huge", memory_mib=4000), guest("scratch", protected=False), rooms=(room("h2"),)
    )
    assert found.back == ()
    assert [(one.name, one.why) for one in found.waits] == [
        ("huge", "huge needs 4000 MiB; the largest gap on 1 usable hosts is 1024 MiB")
    ]
    assert found.stay_down == ("scratch",)


def test_a_circle_of_dependencies_is_refused() -> None:
    with pytest.raises(Invalid, match="wait for each other"):
        lost(guest("a", "b"), guest("b", "a"))


def test_an_empty_host_is_lost_without_consequence() -> None:
    assert lost() == Forecast(back=(), waits=(), stay_down=())

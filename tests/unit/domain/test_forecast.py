"""What the loss of a host would mean: the recovery's own planner, asked before."""

import pytest

from domain.affinity import Affinity
from domain.errors import Invalid
from domain.forecast import Forecast, forecast
from domain.placement import Guest, Room
from domain.profiles import Prediction
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

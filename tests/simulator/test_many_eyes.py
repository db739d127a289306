"""Several monitors watch, and some of them die, join, go deaf or disagree: scenarios.

Eight hosts and profile `balanced`: a host is polled every 2 s, and reported after 15 s of silence.
Each host is watched by two of the monitors, a few by more, since each has four to listen to.
"""

from typing import Any

import pytest

from domain.eyes import GONE_S, Eye, eyes_of
from simulator.faults.plan import Fault
from simulator.setup import Setup
from simulator.world.network import Net
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

EIGHT = Setup.small(hosts=8, vms=8)
LATE_S = 25.0
"""An isolated host is recovered 20 s after its cut, and what joins takes three rounds at most."""

WARM_S = 20.0
"""Until every monitor has found its place, and has left what is another's."""


def machines(on: Scene, *names: str) -> None:
    for name in names:
        on.stage.engine.start(name)
    on.passes(WARM_S)


def eyes(on: Scene, host: str = "h1") -> set[str]:
    """The machines whose monitors have watched a host for long enough to judge it."""
    host_id = on.stage.rows.find("host", host)["id"]
    gone = {row["name"] for row in on.stage.rows.table("monitor") if row["gone_at"]}
    rows = on.stage.rows.table("observation", "warm = 1")
    found = {row["monitor"] for row in rows if row["host_id"] == host_id} - gone
    return {name.removesuffix("-monitor") for name in found}


def cut_off_from(on: Scene, hosts: list[str], machine: str) -> None:
    for host in hosts:
        on.stage.centre.networks[Net.MANAGEMENT].cut_both(machine, host)


def isolated(on: Scene) -> None:
    """No machine of the engine reaches h1 any more, and its guests run on."""
    on.stage.centre.networks[Net.MANAGEMENT].isolate("h1")


def incidents(on: Scene) -> list[str | None]:
    return [row["outcome"] for row in on.stage.rows.table("incident")]


def held(on: Scene) -> dict[str, Any]:
    """What the newest decision waits for."""
    (incident,) = on.stage.rows.table("incident", "open = 1")
    decision: dict[str, Any] = incident["decision"] or {}
    return decision


def waits_for(on: Scene, code: str) -> None:
    on.until(lambda: code in [each["reason"] for each in held(on).get("held", ())])


def told(on: Scene, kind: str) -> list[str]:
    rows = on.stage.rows.table("event", "type = ?", kind)
    return [row["data"]["monitor"] for row in rows]


def recovered(on: Scene, limit_s: float = 120.0) -> None:
    on.until(lambda: incidents(on) == ["recovered"], limit_s)
    assert (on.watch.inside, on.caught) == ([], [])


def test_each_host_is_watched_from_two_machines_of_three() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2", "engine-3")
        watched = [eyes(on, f"h{n}") for n in range(1, 9)]
        assert all(len(each) >= 2 for each in watched)
        assert sum(map(len, watched)) < 3 * 8


def test_a_monitor_that_is_cut_off_from_everything_fences_nobody_by_its_word() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2")
        cut_off_from(on, [host.name for host in EIGHT.hosts], "engine-2")
        on.passes(120.0)
        assert told(on, "monitor.blind") == ["engine-2-monitor"]
        assert incidents(on) == []
        # At most once of each host, until it knew that it is the network.
        assert len(told(on, "host.missed")) == len(told(on, "host.answered")) <= 8
        # The other one's word is enough: it is the only one that can tell.
        isolated(on)
        on.until(lambda: not on.h1.powered, limit_s=LATE_S)
        recovered(on)  # late where the deaf machine's worker has a part of it


@pytest.mark.parametrize("after_s", [0.0, 1.0, GONE_S, 2 * GONE_S])
def test_a_host_that_loses_its_power_behind_a_machine_with_a_monitor_is_recovered(
    after_s: float,
) -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2", "engine-3")
        dying = sorted(eyes(on))[-1]
        on.stage.engine.lose_machine(dying)
        on.passes(after_s)
        on.h1.lose_power()
        recovered(on, limit_s=15.0)


def test_the_hosts_of_a_monitor_that_dies_are_watched_by_the_others_within_bounded_time() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2", "engine-3")
        on.stage.engine.lose_machine("engine-3")
        # Five beats and a look until it is gone, three rounds until the others know its hosts.
        on.passes(GONE_S + 4.0 + 8.0)
        assert all(eyes(on, f"h{n}") == {"engine-1", "engine-2"} for n in range(1, 9))
        assert told(on, "monitor.gone") == ["engine-3-monitor"]
        on.stage.engine.regain_machine("engine-3")
        on.passes(WARM_S)
        assert all(len(eyes(on, f"h{n}")) >= 2 for n in range(1, 9))
        assert any("engine-3" in eyes(on, f"h{n}") for n in range(1, 9))


@pytest.mark.parametrize("after_s", [0.5, 5.0, 12.0, 16.0, 18.0])
def test_a_monitor_that_joins_while_a_host_fails_holds_up_nothing(after_s: float) -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2")
        isolated(on)
        on.passes(after_s)
        on.stage.engine.start("engine-3")
        recovered(on, limit_s=LATE_S - after_s)


def test_two_monitors_that_disagree_hold_the_fence_and_it_says_who_hears_the_host() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2")
        cut_off_from(on, ["h1"], "engine-2")
        on.until(lambda: "incident.opened" in on.kinds)
        waits_for(on, "VOTES_DISAGREE")
        assert held(on)["why"].startswith(
            "h1 still answers engine-1-monitor, and is silent to engine-2-monitor"
        )
        on.passes(120.0)
        assert (incidents(on), on.h1.powered) == ([None], True)
        assert told(on, "host.missed") == ["engine-2-monitor"]
        on.stage.centre.networks[Net.MANAGEMENT].heal_all()
        on.until(lambda: incidents(on) == ["returned"])
        assert on.watch.inside == []


def test_a_host_that_one_monitor_misses_for_a_moment_is_not_cut_for_the_other_one_s_network() -> (
    None
):
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2")
        cut_off_from(on, ["h1"], "engine-2")
        on.until(lambda: "incident.opened" in on.kinds)
        waits_for(on, "VOTES_DISAGREE")
        for _ in range(20):
            on.inject(Fault(kind="host.libvirtd_hung", at_s=0, subject="h1", lasts_s=6.0))
            on.passes(31.0)
        assert (incidents(on), on.h1.powered) == ([None], True)
        assert (on.watch.inside, on.caught) == ([], [])


def test_a_host_whose_monitors_are_all_gone_is_not_fenced_until_one_is_back() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2")
        isolated(on)
        on.until(lambda: "incident.opened" in on.kinds)
        frozen = [
            Fault(kind="process.freeze", at_s=0, subject=f"monitor@{machine}", lasts_s=90.0)
            for machine in ("engine-1", "engine-2")
        ]
        on.inject(*frozen)
        waits_for(on, "VOTES_MISSING")
        assert "0 of 2 monitors gave a fresh vote" in held(on)["why"]
        on.passes(60.0)
        assert (incidents(on), on.h1.powered) == ([None], True)
        recovered(on, limit_s=120.0)


def test_a_monitor_that_is_killed_again_and_again_holds_up_no_fence() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2", "engine-3")
        isolated(on)
        for _ in range(20):
            on.stage.engine.kill("monitor@engine-3")
            on.passes(3.0)
        assert incidents(on) == ["recovered"]


def test_the_simulation_computes_the_same_eyes_as_the_monitors_do() -> None:
    with scene(EIGHT) as on:
        machines(on, "engine-1", "engine-2", "engine-3")
        seats = [Eye(name=f"engine-{n}-monitor", machine=f"engine-{n}") for n in (1, 2, 3)]
        for host in EIGHT.hosts:
            host_id = on.stage.rows.find("host", host.name)["id"]
            wanted = {name.removesuffix("-monitor") for name in eyes_of(host_id, seats, 2)}
            assert wanted <= eyes(on, host.name)

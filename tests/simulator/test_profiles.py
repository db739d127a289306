"""The clocks of the timing profiles, read off the real monitor in virtual time.

A host is cut off from the management network just after it answered; its power controller stays
within reach and reads on, so that only silence speaks. In virtual time a wait takes what it says
and code takes nothing, so times are exact to a thousandth of a second, but for what the world adds:

- the answer to a poll takes 3 to 30 ms (`simulator.world.latency`), which is when silence begins
  and a round without silent hosts ends;
- a verdict falls at the end of a poll, so limits are reached up to one poll late, never early;
- a recovery is asked for only after the power controller was read, in at most 0.6 s;
- the state of the host is looked at ten times a second, all else is read from the rows' own times.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from domain.inventory import HostState
from domain.liveness import LATER, Verdict
from domain.profiles import TIMINGS, Profile, Timing
from simulator.loop import EPOCH
from simulator.setup import Setup
from simulator.stage import Stage, on_stage, set_stage
from simulator.world.hypervisor import VirtualHypervisor
from simulator.world.network import Net

pytestmark = pytest.mark.unit

EXACT_S = 0.001
ANSWER_S = 0.03
READ_S = 0.6
LOOK_S = 0.1
WARM_POLLS = 5

FIGURES = {
    Profile.CLASSIC: (2.0, 60.0),
    Profile.BALANCED: (2.0, 15.0),
    Profile.FAST: (1.0, 4.0),
    Profile.CAREFUL: (5.0, 120.0),
}
"""Seconds between polls, and seconds of silence until `non_responsive`."""


@dataclass
class Watched:
    """What was seen of `h1`, in virtual seconds."""

    profile: Profile
    polls: list[float] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)
    cut_s: float = 0.0
    states: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, float] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    heard_s: float = 0.0

    @property
    def timing(self) -> Timing:
        """What the profile fixes."""
        return TIMINGS[self.profile]


def seconds(at: datetime) -> float:
    return (at - EPOCH).total_seconds()


def count_polls(monkeypatch: pytest.MonkeyPatch, seen: Watched) -> None:
    """Note when polls of `h1` begin, and when those end that get no answer."""
    real = VirtualHypervisor.poll

    async def counted(self: VirtualHypervisor, uri: str, deadline_s: float) -> Any:
        loop = asyncio.get_running_loop()
        if "h1" not in uri:
            return await real(self, uri, deadline_s)
        seen.polls.append(loop.time())
        try:
            return await real(self, uri, deadline_s)
        except Exception:
            seen.misses.append(loop.time())
            raise

    monkeypatch.setattr(VirtualHypervisor, "poll", counted)


async def isolated(stage: Stage, seen: Watched) -> None:
    """Warm up, cut `h1` off just after it answered, and look on until it is given up."""
    stage.engine.start(roles=("monitor",))  # takes failures by itself: nobody else is needed
    await stage.until(lambda: len(seen.polls) == WARM_POLLS, "no polls", 60)
    await asyncio.sleep(ANSWER_S)
    seen.cut_s = stage.loop.time()
    stage.centre.networks[Net.MANAGEMENT].isolate("h1")
    limit_s = stage.loop.time() + 3 * seen.timing.non_responsive_after_s
    while HostState.NON_RESPONSIVE not in seen.states and stage.loop.time() < limit_s:
        await asyncio.sleep(LOOK_S)
        look(stage, seen)


def look(stage: Stage, seen: Watched) -> None:
    """Note what is new in the rows."""
    h1 = stage.rows.find("host", "h1")
    seen.states.setdefault(h1["state"], stage.loop.time())
    for row in stage.rows.table("observation"):
        if row["host_id"] == h1["id"] and row["verdict"] not in seen.verdicts:
            seen.verdicts[row["verdict"]] = seconds(row["at"])
            if row["last_answer_at"] is not None:
                seen.heard_s = seconds(row["last_answer_at"])


@pytest.fixture(params=list(Profile), ids=str)
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """What was seen of a host that was cut off, under one profile."""
    found = Watched(request.param)
    stage = set_stage(1, Setup.small(hosts=3, vms=0, profile=request.param))
    count_polls(monkeypatch, found)
    with on_stage(stage) as run:
        run(isolated(stage, found))
    assert stage.defects == []
    h2 = stage.rows.find("host", "h2")
    samples = [row for row in stage.rows.table("host_sample") if row["host_id"] == h2["id"]]
    found.samples = sorted(seconds(row["at"]) for row in samples)
    return found


def test_the_clocks_of_a_profile(seen: Watched) -> None:
    poll_s, limit_s = FIGURES[seen.profile]
    polled_every(seen, poll_s)
    connecting_at_the_first_miss(seen, poll_s)
    non_responsive_after(seen, limit_s)
    sampled_every(seen, poll_s)


def polled_every(seen: Watched, poll_s: float) -> None:
    """Silence does not slow the polls down: a poll's deadline is within the time between two.

    The one that reaches the limit may last a little longer (`domain.liveness.for_next_poll`).
    """
    gaps = [later - earlier for earlier, later in pairwise(seen.polls)]
    assert len(gaps) >= WARM_POLLS
    late = [gap for gap in gaps if gap != pytest.approx(poll_s, abs=EXACT_S)]
    assert len(late) <= 1
    assert all(poll_s < gap <= poll_s * (1 + LATER) + EXACT_S for gap in late)


def connecting_at_the_first_miss(seen: Watched, poll_s: float) -> None:
    """The first poll after the cut ends at its deadline, and nothing waits after that."""
    first_s = seen.polls[WARM_POLLS - 1] + poll_s + seen.timing.poll_deadline_s
    assert seen.misses[0] == pytest.approx(first_s, abs=EXACT_S)
    assert seen.verdicts[Verdict.CONNECTING] == pytest.approx(first_s, abs=EXACT_S)
    assert seen.states[HostState.CONNECTING] == pytest.approx(first_s, abs=LOOK_S + EXACT_S)


def non_responsive_after(seen: Watched, limit_s: float) -> None:
    """At the first poll that ends after the limit: never before it, at most a deadline after it."""
    silent_s = seen.verdicts[Verdict.NON_RESPONSIVE] - seen.heard_s
    assert limit_s <= silent_s < limit_s + seen.timing.poll_deadline_s + EXACT_S
    earliest_s = min(miss for miss in seen.misses if miss - seen.heard_s >= limit_s)
    assert seen.verdicts[Verdict.NON_RESPONSIVE] == pytest.approx(earliest_s, abs=EXACT_S)
    taken_s = seen.states[HostState.NON_RESPONSIVE] - earliest_s
    assert 0 <= taken_s <= READ_S + LOOK_S + EXACT_S


def sampled_every(seen: Watched, poll_s: float) -> None:
    """Statistics come with the polls; a round ends with the slowest answer of its hosts.

    The round of the first miss ends one deadline later than those before, once; that which
    reaches the limit, when it is reached.
    """
    told_s = seen.verdicts[Verdict.NON_RESPONSIVE] - EXACT_S
    before = [at for at in seen.samples if at <= seen.cut_s]
    after = [at for at in seen.samples if seen.cut_s < at < told_s]
    gaps = [later - earlier for part in (before, after) for earlier, later in pairwise(part)]
    assert len(gaps) >= WARM_POLLS
    assert gaps == pytest.approx([poll_s] * len(gaps), abs=ANSWER_S)


def test_the_figures_are_those_of_the_product() -> None:
    assert {
        profile: (timing.poll_s, timing.non_responsive_after_s)
        for profile, timing in TIMINGS.items()
    } == FIGURES

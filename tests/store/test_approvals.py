"""A person's leave to fence what the storm guard holds back: given, expired, withdrawn."""

from typing import Any
from uuid import UUID

import pytest

from domain.permissions import GRANTS, Permission, Role
from engine.actions.approvals import ApproveFence, WithdrawApproval
from engine.closing import LOOK_AGAIN
from engine.queries.approvals import ListApprovals
from engine.views_explained import WaitingFenceView
from store import approvals, incidents, plumbing
from tests.store.engine_room import Engine
from tests.store.scenes import Scene
from tests.store.test_fencing import HEARD, claim, limits, silent_host
from tests.store.world import World

pytestmark = pytest.mark.store

SPENT = {"reason": "BUDGET_SPENT", "detail": "1 of 1 fences in the last 300 s are spent"}


async def held(engine: Engine, *reasons: dict[str, str]) -> Scene:
    """A host whose fence the storm guard holds back for these reasons."""
    scene = await Scene(engine).build("host", "non_responsive")
    await scene.judged_incident()
    decision = {"move": "hold", "why": "because", "held": list(reasons)}
    await engine.world.put("incident", scene.ids["incident"], phase="decide", decision=decision)
    return scene


def leave(scene: Scene, **values: Any) -> ApproveFence:
    return ApproveFence(host_id=scene.ids["host"], reason="the rack burns", **values)


async def listed(engine: Engine) -> tuple[WaitingFenceView, ...]:
    found: tuple[WaitingFenceView, ...] = await engine.backend.run_query(ListApprovals())
    return found


async def fence(world: World, incident: UUID) -> UUID:
    """The operation of a fence in an incident."""
    return await world.operation(kind="host.fence", incident_id=incident)


async def spent(world: World) -> UUID:
    """A host that may not be fenced any more: another one was."""
    assert await claim(world, await silent_host(world, "h1"))
    return await silent_host(world, "h2")


async def given(world: World, host: UUID, lasts_s: int = 900) -> UUID:
    incident = await world.incident(host)
    await world.do(approvals.give, incident, "ann", "the rack burns", lasts_s, world.now)
    return incident


async def test_an_approved_fence_exceeds_the_budget_and_no_other_does(world: World) -> None:
    host = await spent(world)
    assert not await claim(world, host)
    incident = await given(world, host)
    third = await silent_host(world, "h3")
    assert not await claim(world, third, await fence(world, await world.incident(third)))
    assert await claim(world, host, await fence(world, incident))


@pytest.mark.parametrize(("watched_s", "counts"), [(899, True), (901, False)])
async def test_an_approval_expires_by_watching_and_by_no_clock(
    world: World, watched_s: float, counts: bool
) -> None:
    host = await spent(world)
    incident = await given(world, host)
    world.later(100_000)
    await world.watch(watched_s)
    heard = await world.heard(host) or HEARD
    # The first fence has left its window by then: only a longer one shows the approval.
    await limits(world, fence_window_s=3000)
    assert await claim(world, host, await fence(world, incident), heard=heard) is counts


async def test_a_withdrawn_approval_counts_no_more(world: World) -> None:
    host = await spent(world)
    incident = await given(world, host)
    assert await world.do(approvals.withdraw, incident, world.now) == 1
    assert await world.do(approvals.withdraw, incident, world.now) == 0
    assert not await claim(world, host, await fence(world, incident))


async def test_an_approval_of_a_host_that_was_heard_again_cuts_nothing(world: World) -> None:
    host = await spent(world)
    incident = await given(world, host)
    await world.observe(host, 5)
    assert not await claim(world, host, await fence(world, incident))


async def test_giving_wakes_the_recovery_and_shows_who_gave_it(engine: Engine) -> None:
    scene = await held(engine, SPENT)
    await engine.act(leave(scene))
    told = [row for row in await engine.rows("outbox") if row["kind"] == plumbing.SIGNAL]
    assert [row["signal"] for row in told] == [LOOK_AGAIN]
    (view,) = await listed(engine)
    assert (view.host_name, view.reasons, view.approvable) == ("h1", ("BUDGET_SPENT",), True)
    assert [(one.principal, one.reason, one.valid) for one in view.approvals] == [
        ("ann", "the rack burns", True)
    ]


async def test_withdrawing_is_shown_and_can_be_repeated(engine: Engine) -> None:
    scene = await held(engine, SPENT)
    await engine.act(leave(scene))
    for _ in range(2):
        await engine.act(WithdrawApproval(host_id=scene.ids["host"]))
    (view,) = await listed(engine)
    assert [(one.valid, one.withdrawn_at is not None) for one in view.approvals] == [(False, True)]


@pytest.mark.parametrize("reason", ["DISARMED", "OWN_HOST", "NO_FENCE_DEVICE", "VOTES_MISSING"])
async def test_what_is_configured_or_contradicted_cannot_be_approved(
    engine: Engine, reason: str
) -> None:
    scene = await held(engine, {"reason": reason, "detail": "it is so"})
    error = await engine.refusal(leave(scene))
    assert "NOT_APPROVABLE" in {error.code, *(problem.code for problem in error.problems)}
    assert await listed(engine) == ()


async def test_one_reason_among_others_can_be_approved(engine: Engine) -> None:
    scene = await held(engine, {"reason": "VOTES_MISSING", "detail": "0 of 1"}, SPENT)
    await engine.act(leave(scene))
    (view,) = await listed(engine)
    assert view.approvals[0].valid


async def test_a_host_that_is_proven_dead_waits_for_no_approval(engine: Engine) -> None:
    scene = await held(engine, SPENT)
    await engine.world.put("incident", scene.ids["incident"], phase="start")
    error = await engine.refusal(leave(scene))
    assert "NO_OPEN_INCIDENT" in {error.code, *(problem.code for problem in error.problems)}
    assert await engine.world.do(incidents.judged) == []


@pytest.mark.parametrize("lasts_s", [0, 59, 86_401])
def test_an_approval_lasts_a_minute_at_least_and_a_day_at_most(lasts_s: int) -> None:
    with pytest.raises(ValueError, match="lasts_s"):
        ApproveFence(host_id=UUID(int=1), reason="burning", lasts_s=lasts_s)


def test_a_program_approves_nothing() -> None:
    may = {role for role, granted in GRANTS.items() if Permission.HOST_APPROVE_FENCE in granted}
    assert may == {Role.ADMIN, Role.OPERATOR, Role.ENGINE}

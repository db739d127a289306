"""A libvirtd that hangs is restarted over SSH by the engine itself, where it may."""

import itertools
from typing import Any

import pytest

from domain.profiles import Profile
from domain.soft_step import AGAIN_S, TRIES_MAX
from engine.actions.clusters import ArmCluster, EditCluster
from simulator.faults.plan import Fault
from simulator.setup import Setup
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit
SETUP = Setup.small(profile=Profile.FAST).with_ssh()
HANGS = Fault(kind="host.libvirtd_hung", at_s=0, subject="h1")


def host(world: Scene) -> dict[str, Any]:
    return world.stage.rows.find("host", "h1")


def steps(world: Scene) -> list[dict[str, Any]]:
    return world.stage.rows.table("soft_step")


def assert_nobody_was_hurt(world: Scene, runs: list[dict[str, Any]]) -> None:
    assert world.stage.centre.powered_off == []
    assert world.stage.rows.table("fence_claim") == []
    assert world.stage.rows.table("incident") == []
    assert world.stage.rows.table("vm_run") == runs
    assert world.watch.violations == []
    assert world.caught == []


@pytest.mark.parametrize("profile", Profile)
def test_a_hung_libvirtd_is_restarted_once_and_its_guests_run_on(profile: Profile) -> None:
    with scene(Setup.small(profile=profile).with_ssh()) as world:
        world.start()
        runs, boot = world.stage.rows.table("vm_run"), world.h1.boot
        world.inject(HANGS)
        world.until(lambda: len(steps(world)) == 1 and host(world)["state"] == "up", limit_s=300)
        world.passes(60)
        assert [(s["automatic"], s["outcome"]) for s in steps(world)] == [(True, "answered")]
        assert world.kinds.count("ssh.restart") == 1
        assert world.h1.boot == boot
        assert_nobody_was_hurt(world, runs)


def test_a_restart_that_fails_is_tried_again_later_and_not_for_ever() -> None:
    with scene(SETUP) as world:
        world.start()
        runs = world.stage.rows.table("vm_run")
        world.inject(HANGS, Fault(kind="ssh.failing", at_s=0, subject="h1"))
        world.passes(20 * AGAIN_S)
        found = sorted(s["claimed_at"] for s in steps(world))
        assert len(found) == TRIES_MAX
        gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(found)]
        assert gaps[0] >= AGAIN_S
        assert gaps[1] >= 2 * AGAIN_S
        assert {s["outcome"] for s in steps(world)} == {"failed"}
        assert host(world)["state"] == "connecting"
        assert "TRIES_SPENT" in host(world)["state_reason"]
        assert "not before" in host(world)["state_reason"]
        assert_nobody_was_hurt(world, runs)


def test_an_sshd_that_is_down_is_told_and_helps_once_it_is_back() -> None:
    with scene(SETUP) as world:
        world.start()
        runs = world.stage.rows.table("vm_run")
        world.inject(HANGS, Fault(kind="ssh.down", at_s=0, subject="h1", lasts_s=30))
        world.until(lambda: bool(steps(world)) and steps(world)[0]["outcome"] is not None)
        assert "SSH_NO_ANSWER" in steps(world)[0]["detail"]
        world.until(lambda: host(world)["state"] == "up", limit_s=300)
        assert sorted(s["outcome"] for s in steps(world)) == ["answered", "failed"]
        assert_nobody_was_hurt(world, runs)


def waits_with(world: Scene, code: str) -> None:
    world.until(lambda: code in host(world)["state_reason"])
    world.passes(60)
    assert (host(world)["state"], steps(world)) == ("connecting", [])


def test_a_disarmed_cluster_restarts_nothing_until_it_is_armed() -> None:
    with scene(SETUP) as world:
        world.start()
        (cluster,) = world.stage.rows.table("cluster")
        world.does(world.stage.done(ArmCluster(cluster_id=cluster["id"], armed=False)))
        world.inject(HANGS)
        waits_with(world, "DISARMED")
        world.does(world.stage.done(ArmCluster(cluster_id=cluster["id"], armed=True)))
        world.until(lambda: host(world)["state"] == "up")
        assert len(steps(world)) == 1


def test_the_soft_step_may_be_switched_off() -> None:
    with scene(SETUP) as world:
        world.start()
        (cluster,) = world.stage.rows.table("cluster")
        world.does(world.stage.done(EditCluster(cluster_id=cluster["id"], soft_step=False)))
        world.inject(HANGS)
        waits_with(world, "SOFT_STEP_OFF")


def test_without_access_a_person_is_told_to_restart_libvirtd() -> None:
    with scene(Setup.small(profile=Profile.FAST)) as world:
        world.start()
        world.inject(HANGS)
        waits_with(world, "NO_SSH_ACCESS")
        assert "restart libvirtd on h1 by hand" in host(world)["state_reason"]


def test_a_host_that_dies_during_its_soft_step_is_recovered_like_any_other() -> None:
    with scene(SETUP) as world:
        world.start()
        cut = Fault(
            kind="host.power_cut", at_s=0, subject="h1", after_event="step.started:soft.restart"
        )
        world.inject(HANGS, cut)
        world.until(lambda: "incident.closed" in [k for _, k, _ in world.recorder.tape])
        (incident,) = world.stage.rows.table("incident")
        assert incident["outcome"] == "recovered"
        world.until(lambda: all(s["outcome"] for s in steps(world)))
        assert world.watch.violations == []

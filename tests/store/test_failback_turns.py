"""Which VMs go home first, and that those which stay away take nobody's turn."""

from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from domain.errors import Conflict
from engine.actions.affinity import CreateAffinityGroup
from store import failbacks
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.test_failback import Away, away
from tests.store.test_queries import statements

pytestmark = pytest.mark.store


async def keep(engine: Engine, name: str, *vm_ids: UUID, together: bool) -> None:
    """A soft rule on VMs of the scene's cluster."""
    cluster_id = engine.world.cluster_id
    how: dict[str, Any] = {"name": name, "together": together, "hard": False, "vm_ids": vm_ids}
    await engine.act(CreateAffinityGroup(cluster_id=cluster_id, **how))


async def also_away(scene: Away, name: str, home: UUID, **columns: Any) -> Row:
    """One more VM that runs on h2 and goes home; its run."""
    own: dict[str, Any] = {"failback": "auto", "home_id": home} | columns
    run = await scene.world.running(await scene.world.vm(name, **own), scene.host)
    await scene.close(run["operation_id"])
    return run


async def test_two_that_a_soft_rule_keeps_together_go_home_one_after_the_other(
    engine: Engine,
) -> None:
    scene = await away(engine)
    run = await also_away(scene, "web", scene.home, priority=90)
    await keep(engine, "near", scene.vm, run["vm_id"], together=True)
    assert await scene.duty.go_home() == 1
    assert columns(await scene.moves(), "target_name") == ["web"]
    await scene.close((await scene.moves())[0]["id"])
    await scene.world.put("vm_run", run["id"], host_id=scene.home)
    assert await scene.duty.go_home() == 1
    assert sorted(columns(await scene.moves(), "target_name")) == ["db", "web"]


@pytest.mark.parametrize("why", ["no room for both", "the other rests", "its last try failed"])
async def test_two_that_are_kept_together_stay_where_one_could_not_follow(
    engine: Engine, why: str
) -> None:
    scene = await away(engine)
    run = await also_away(scene, "web", scene.home)
    await keep(engine, "near", scene.vm, run["vm_id"], together=True)
    if why == "no room for both":
        await scene.world.put("host", scene.home, memory_mib=500)
    elif why == "the other rests":
        await scene.world.put("vm", run["vm_id"], failback_rests=True)
    else:
        failed = {"id": new_id(), "vm_id": run["vm_id"], "open": 1, "failures": 0}
        failed |= {"claimed_at": scene.world.now}
        assert await scene.world.do(failbacks.claim, failed, 2)
        await scene.world.do(failbacks.fail, failed["id"], 1, 600, ("X", "y"))
    assert await scene.code() == "SOFT_RULES"
    assert await scene.duty.go_home() == 0


async def test_two_that_are_kept_together_go_once_the_wait_after_a_failed_try_is_over(
    engine: Engine,
) -> None:
    scene = await away(engine)
    run = await also_away(scene, "web", scene.home, priority=90)
    await keep(engine, "near", scene.vm, run["vm_id"], together=True)
    assert await scene.duty.go_home() == 1
    await scene.fails()
    await scene.world.watch(59)
    assert await scene.duty.go_home() == 0
    assert await scene.code() == "SOFT_RULES"
    await scene.world.watch(1)
    assert await scene.duty.go_home() == 1
    tried, again = await scene.moves()
    assert (tried["target_name"], again["target_name"]) == ("web", "web")
    await scene.close(again["id"])
    await scene.world.put("vm_run", run["id"], host_id=scene.home)
    assert await scene.duty.go_home() == 1
    assert (await scene.moves())[-1]["target_name"] == "db"


async def test_those_that_rules_keep_away_do_not_keep_others_from_going(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.records.going_home.ORDERED_AT_ONCE", 1)
    scene = await away(engine, priority=90)
    at_home = await scene.world.running(await scene.world.vm("web"), scene.home)
    await scene.close(at_home["operation_id"])
    await keep(engine, "far", scene.vm, at_home["vm_id"], together=False)
    await also_away(scene, "log", scene.home, priority=10)
    assert await scene.duty.go_home() == 1
    assert columns(await scene.moves(), "target_name") == ["log"]


async def test_looking_at_many_that_stay_away_takes_no_more_statements_than_at_one(
    engine: Engine,
) -> None:
    scene = await away(engine)
    at_home = await scene.world.running(await scene.world.vm("web"), scene.home)
    await scene.close(at_home["operation_id"])
    await keep(engine, "far", scene.vm, at_home["vm_id"], together=False)

    async def asked() -> int:
        with statements(engine.world.database) as seen:
            assert await scene.duty.go_home() == 0
        return len(seen)

    alone = await asked()
    for number in range(5):
        run = await also_away(scene, f"more{number}", scene.home, memory_mib=16)
        await keep(engine, f"far{number}", run["vm_id"], at_home["vm_id"], together=False)
    assert await asked() == alone


async def test_however_many_are_refused_each_of_a_home_has_its_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await away(engine, priority=90)
    web = await also_away(scene, "web", scene.home, priority=80)
    log = await also_away(scene, "log", scene.home, priority=70)
    asked: list[UUID] = []

    async def refused(params: Any, *_how: Any, **_more: Any) -> Any:
        asked.append(params.vm_id)
        raise Conflict("NOT_NOW", "not now", next_step="later")

    monkeypatch.setattr(engine.backend, "run_action", refused)
    for _ in range(6):
        assert await scene.duty.go_home() == 0
    assert Counter(asked) == {scene.vm: 2, web["vm_id"]: 2, log["vm_id"]: 2}


async def test_one_that_was_refused_lets_others_to_its_home_go_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await away(engine, priority=90)
    await also_away(scene, "web", scene.home)
    asked = engine.backend.run_action

    async def refused(params: Any, *how: Any, **more: Any) -> Any:
        if params.vm_id == scene.vm:
            raise Conflict("NOT_NOW", "not now", next_step="later")
        return await asked(params, *how, **more)

    monkeypatch.setattr(engine.backend, "run_action", refused)
    assert await scene.duty.go_home() == 0
    assert await scene.duty.go_home() == 1
    assert columns(await scene.moves(), "target_name") == ["web"]


@pytest.mark.parametrize(
    ("edited", "taken", "code"),
    [
        ({"memory_mib": 2000}, {}, "GO"),
        ({"vcpus": 9}, {}, "GO"),
        ({"memory_mib": 16}, {"memory_reserved_mib": 1000}, "NO_ROOM"),
        ({"vcpus": 1}, {"vcpus_reserved": 3}, "NO_ROOM"),
    ],
)
async def test_a_vm_goes_home_with_what_its_run_has_taken_whatever_was_edited_since(
    engine: Engine, edited: dict[str, Any], taken: dict[str, Any], code: str
) -> None:
    scene = await away(engine, vcpus=2)
    await scene.world.put("cluster", scene.world.cluster_id, vcpu_overcommit=1.0)
    await scene.world.put("host", scene.home, cpus=4, **taken)
    await scene.world.put("vm", scene.vm, **edited)
    assert await scene.code() == code
    assert await scene.duty.go_home() == (1 if code == "GO" else 0)

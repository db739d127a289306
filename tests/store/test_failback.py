"""VMs that go back to their homes: when, once, how they try again, and what a person decides."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from domain.errors import Conflict, NotFound
from domain.inventory import HostState
from domain.operations import OperationState, Outcome, Problem
from engine.actions.affinity import CreateAffinityGroup
from engine.actions.clusters import ArmCluster, EditCluster
from engine.actions.host_config import RemoveHost
from engine.actions.migrate_vm import MigrateVm
from engine.actions.vm_config import CreateVm, EditVm
from engine.queries.vms import ShowVm
from engine.records.going_home import GoingHome
from engine.records.resting import note_move, note_place
from store import failbacks, inventory
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store


class Away:
    """`db` runs on h2; h1, its home, has been up for ten minutes."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.duty = GoingHome(self.world.database, engine.backend, self.world.clock)

    async def build(self, *, stable: bool = True, **columns: Any) -> "Away":
        world = self.world
        self.home, self.host = await world.host("h1"), await world.host("h2")
        own: dict[str, Any] = {"failback": "auto", "home_id": self.home} | columns
        self.vm = await world.vm("db", **own)
        self.run = await world.running(self.vm, self.host)
        await self.close((await self.engine.rows("operation"))[0]["id"])
        await world.monitor()
        await world.watch(1)
        assert await self.duty.go_home() == 0
        if stable:
            await world.watch(600)
        return self

    async def close(self, operation_id: UUID, **how: Any) -> None:
        """End an operation; well, unless told otherwise."""
        given = {"state": OperationState.SUCCEEDED, "summary": "done"} | how
        await self.engine.operations.close(Outcome(operation_id=operation_id, **given))

    async def moves(self) -> list[Row]:
        """Operations that move VMs."""
        return [op for op in await self.engine.rows("operation") if op["kind"] == "vm.migrate"]

    async def code(self) -> str:
        """Why it is not moved home now, as `vm show` tells it."""
        shown = await self.engine.backend.run_query(ShowVm(vm_id=self.vm))
        assert shown.goes_home is not None
        return str(shown.goes_home.code)

    async def fails(self) -> None:
        """The move under way fails, which the next look finds."""
        problem = Problem(code="MIGRATION_FAILED", detail="libvirt said no", next_step="look")
        move = (await self.moves())[-1]["id"]
        await self.close(move, state=OperationState.FAILED, summary="", problem=problem)
        assert await self.duty.go_home() == 0
        assert await self.duty.go_home() == 0  # its age is noted


async def away(engine: Engine, **how: Any) -> Away:
    return await Away(engine).build(**how)


async def test_a_vm_goes_home_by_an_ordinary_migration_of_low_priority(engine: Engine) -> None:
    scene = await away(engine, protected=True)
    assert await scene.duty.go_home() == 1
    (move,) = await scene.moves()
    assert (move["principal"], move["reason"]) == ("engine:failback", "failback")
    assert (move["priority"], move["target_id"]) == (4, scene.vm)
    assert move["params"] == {"vm_id": str(scene.vm), "host_id": str(scene.home)}
    assert await scene.code() == "UNDER_WAY"


async def test_of_two_relays_that_look_at_once_one_orders_it(engine: Engine) -> None:
    scene = await away(engine)
    other = GoingHome(scene.world.database, engine.backend, scene.world.clock)
    ordered = await asyncio.gather(scene.duty.go_home(), other.go_home(), return_exceptions=True)
    assert sum(one for one in ordered if isinstance(one, int)) == 1, ordered
    assert len(await scene.moves()) == 1
    assert await scene.duty.go_home() == 0
    assert len(await scene.moves()) == 1


async def test_two_claims_that_overlap_are_one(engine: Engine) -> None:
    scene = await away(engine)

    def claim(connection: Any) -> Any:
        row = {"id": new_id(), "vm_id": scene.vm, "open": 1, "failures": 0}
        row |= {"claimed_at": scene.world.now}
        return failbacks.claim(connection, row, 2)

    assert sorted(await scene.world.together(claim, claim)) == [False, True]


async def test_a_home_is_stable_by_the_monitors_own_clocks_alone(engine: Engine) -> None:
    scene = await away(engine, stable=False)
    scene.world.later(100_000)
    assert await scene.duty.go_home() == 0
    assert await scene.code() == "HOME_NOT_STABLE"
    await scene.world.watch(599)
    assert await scene.duty.go_home() == 0
    await scene.world.watch(1)
    assert await scene.duty.go_home() == 1


async def test_a_home_that_flaps_begins_anew(engine: Engine) -> None:
    scene = await away(engine)
    await scene.world.put("host", scene.home, state_since=scene.world.later(3))
    assert await scene.duty.go_home() == 0
    assert await scene.code() == "HOME_NOT_STABLE"
    await scene.world.watch(600)
    assert await scene.duty.go_home() == 1


async def test_the_cluster_says_how_long(engine: Engine) -> None:
    scene = await away(engine, stable=False)
    await engine.act(EditCluster(cluster_id=scene.world.cluster_id, failback_after_s=30))
    await scene.world.watch(30)
    assert await scene.duty.go_home() == 1


HELD = ["disarmed", "incident", "planned", "home_down", "full", "busy", "off", "rests", "source"]
HELD += ["narrow"]
CODES = ["DISARMED", "INCIDENT_OPEN", "HOME_BUSY", "HOME_NOT_UP", "NO_ROOM", "VM_BUSY"]
CODES += ["FAILBACK_OFF", "RESTS", "HOST_NOT_UP", "NO_ROOM"]


@pytest.mark.parametrize(("what", "code"), list(zip(HELD, CODES, strict=True)))
async def test_it_stays_for_each_reason_also_in_the_statement(
    engine: Engine, what: str, code: str
) -> None:
    scene = await away(engine)
    world = scene.world
    if what == "disarmed":
        await engine.act(ArmCluster(cluster_id=world.cluster_id, armed=False))
    elif what == "incident":
        await world.incident(await world.host("h3"))
    elif what == "planned":
        await world.operation(scene.home, kind="host.shut_down", target_type="host")
    elif what == "home_down":
        await world.put("host", scene.home, state=HostState.MAINTENANCE)
    elif what == "full":
        await world.put("host", scene.home, memory_reserved_mib=1000)
    elif what == "narrow":
        await world.put("cluster", world.cluster_id, vcpu_overcommit=1.0)
        await world.put("host", scene.home, cpus=2, vcpus_reserved=2)
    elif what == "busy":
        await world.lock(scene.vm, await world.operation(new_id()))
    elif what == "source":
        await world.put("host", scene.host, state=HostState.CONNECTING)
    else:
        name, value = {"off": ("failback", "off"), "rests": ("failback_rests", True)}[what]
        await world.put("vm", scene.vm, **{name: value})
    row = {"id": new_id(), "vm_id": scene.vm, "open": 1, "failures": 0, "claimed_at": world.now}
    assert not await world.do(failbacks.claim, row, 2)
    assert await scene.duty.go_home() == 0
    assert await scene.code() == code
    assert await scene.moves() == []


async def test_the_limit_of_migrations_stands_in_the_statement(engine: Engine) -> None:
    scene = await away(engine)
    row = {"id": new_id(), "vm_id": scene.vm, "open": 1, "failures": 0}
    row |= {"claimed_at": scene.world.now}
    assert not await scene.world.do(failbacks.claim, row, 0)
    assert await scene.world.do(failbacks.claim, row, 1)


async def test_one_vm_at_a_time_goes_to_a_home_the_most_important_first(engine: Engine) -> None:
    scene = await away(engine)
    own: dict[str, Any] = {"failback": "auto", "home_id": scene.home, "priority": 90}
    other = await scene.world.vm("web", **own)
    run = await scene.world.running(other, scene.host)
    await scene.close(run["operation_id"])
    assert await scene.duty.go_home() == 1
    assert columns(await scene.moves(), "target_name") == ["web"]
    assert await scene.code() == "TAKES_TURNS"
    await scene.close((await scene.moves())[0]["id"])
    await scene.world.put("vm_run", run["id"], host_id=scene.home)
    assert await scene.duty.go_home() == 1
    assert sorted(columns(await scene.moves(), "target_name")) == ["db", "web"]


async def test_one_that_failed_is_tried_again_after_a_wait_that_doubles(engine: Engine) -> None:
    scene = await away(engine)
    for wait_s in (60, 120, 240):
        assert await scene.duty.go_home() == 1
        await scene.fails()
        assert await scene.code() == "TRIES_AGAIN"
        (row,) = await engine.rows("failback")
        assert (row["wait_s"], row["code"]) == (wait_s, "MIGRATION_FAILED")
        await scene.world.watch(wait_s - 1)
        assert await scene.duty.go_home() == 0
        await scene.world.watch(1)
    shown = await engine.backend.run_query(ShowVm(vm_id=scene.vm))
    assert shown.goes_home.code == "GO"


async def test_the_next_try_is_told_as_a_time(engine: Engine) -> None:
    scene = await away(engine)
    await scene.duty.go_home()
    await scene.fails()
    await scene.world.watch(20)
    shown = await engine.backend.run_query(ShowVm(vm_id=scene.vm))
    assert (shown.goes_home.tries_at - scene.world.now).total_seconds() == 40
    assert "failed 1 times in a row, the last time: MIGRATION_FAILED" in shown.goes_home.detail


async def test_one_that_finds_no_room_is_given_up_and_holds_nobody(engine: Engine) -> None:
    scene = await away(engine)
    await scene.duty.go_home()
    (move,) = await scene.moves()
    await engine.operations.claim(move["id"], 1, "run-1")
    await engine.operations.wait(move["id"], "NO_ROOM", "the largest gap is 3 MiB")
    await scene.duty.go_home()
    await scene.duty.go_home()
    asked = [row for row in await engine.rows("outbox") if row["kind"] == "cancel"]
    assert columns(asked, "operation_id") == [move["id"]]
    await scene.close(move["id"], state=OperationState.CANCELLED, summary="nothing was moved")
    assert await scene.duty.go_home() == 0
    (row,) = await engine.rows("failback")
    assert (row["code"], row["failures"]) == ("NO_ROOM", 1)
    assert not (await scene.world.get("vm", scene.vm))["failback_rests"]


@pytest.mark.parametrize("what", ["DISARMED", "INCIDENT_OPEN"])
async def test_a_move_that_has_not_begun_is_given_up_once_nothing_may_be_moved(
    engine: Engine, what: str
) -> None:
    scene = await away(engine)
    await scene.duty.go_home()
    (move,) = await scene.moves()
    await engine.operations.claim(move["id"], 1, "run-1")
    if what == "DISARMED":
        await engine.act(ArmCluster(cluster_id=scene.world.cluster_id, armed=False))
    else:
        await scene.world.incident(await scene.world.host("h3"))
    run_id = scene.run["id"]
    there = {"target_host_id": scene.home, "target_epoch": 1, "target_generation": 2}
    there |= {"moved_by": move["id"]}
    await scene.world.put("vm_run", run_id, state="migrating", **there)
    await scene.duty.go_home()
    assert [row for row in await engine.rows("outbox") if row["kind"] == "cancel"] == []
    await scene.world.put("vm_run", run_id, state="running", **dict.fromkeys(there))
    for _ in range(2):
        await scene.duty.go_home()
    asked = [row for row in await engine.rows("outbox") if row["kind"] == "cancel"]
    assert columns(asked, "operation_id") == [move["id"]]
    await scene.close(move["id"], state=OperationState.CANCELLED, summary="nothing was moved")
    assert await scene.duty.go_home() == 0
    assert columns(await engine.rows("failback"), "code") == [what]
    assert not (await scene.world.get("vm", scene.vm))["failback_rests"]


async def test_a_soft_rule_that_would_be_broken_at_home_keeps_it_away(engine: Engine) -> None:
    scene = await away(engine)
    web = await scene.world.vm("web")
    run = await scene.world.running(web, scene.home)
    await scene.close(run["operation_id"])
    cluster = scene.world.cluster_id
    await engine.act(
        CreateAffinityGroup(
            cluster_id=cluster, name="far", together=False, hard=False, vm_ids=(scene.vm, web)
        )
    )
    assert await scene.code() == "SOFT_RULES"
    assert await scene.duty.go_home() == 0


async def test_what_a_person_cancels_rests_until_they_say_so_again(engine: Engine) -> None:
    scene = await away(engine)
    await scene.duty.go_home()
    (move,) = await scene.moves()
    await scene.close(move["id"], state=OperationState.CANCELLED, summary="nothing was moved")
    assert await scene.duty.go_home() == 0
    assert await scene.code() == "RESTS"
    done = await engine.act(EditVm(vm_id=scene.vm, failback="auto"))
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert rows[done.operation_id]["summary"] == "it goes home by itself again"
    assert await scene.duty.go_home() == 1


async def test_a_recovery_that_takes_the_vm_over_leaves_no_rest(engine: Engine) -> None:
    scene = await away(engine)
    await scene.duty.go_home()
    (move,) = await scene.moves()
    problem = Problem(code="SUPERSEDED", detail="taken over", next_step="follow")
    await scene.close(move["id"], state=OperationState.CANCELLED, summary="", problem=problem)
    await scene.world.put("cluster", scene.world.cluster_id, armed=False)
    assert await scene.duty.go_home() == 0
    assert await engine.rows("failback") == []
    assert not (await scene.world.get("vm", scene.vm))["failback_rests"]


async def moved(scene: Away, host_id: UUID, operation_id: UUID) -> bool:
    """Whether it rests after it has arrived somewhere."""
    vm = await scene.world.get("vm", scene.vm)
    await scene.world.do(note_move, vm, host_id, operation_id)
    return bool((await scene.world.get("vm", scene.vm))["failback_rests"])


async def test_moved_by_hand_it_rests_and_moved_off_a_host_it_does_not(engine: Engine) -> None:
    scene = await away(engine)
    drain = await scene.world.operation(scene.home, kind="host.maintain", target_type="host")
    part = await scene.world.operation(scene.vm, kind="vm.migrate", parent_id=drain)
    assert not await moved(scene, scene.host, part)
    batch = await scene.world.operation(new_id(), kind="batch", target_type="batch")
    by_hand = await scene.world.operation(scene.vm, kind="vm.migrate", parent_id=batch)
    assert await moved(scene, scene.host, by_hand)
    assert not await moved(scene, scene.home, by_hand)
    alone = (await engine.act(MigrateVm(vm_id=scene.vm))).operation_id
    assert await moved(scene, scene.host, alone)


async def test_a_recovery_ends_a_rest_and_a_start_on_a_named_host_begins_it(
    engine: Engine,
) -> None:
    scene = await away(engine)
    vm = await scene.world.get("vm", scene.vm)
    await scene.world.do(note_place, vm, scene.host, named=True, recovery=False)
    assert await scene.code() == "RESTS"
    await scene.world.do(note_place, vm, scene.host, named=False, recovery=True)
    assert await scene.code() == "GO"


async def test_a_host_that_is_removed_is_nobodys_home_any_more(engine: Engine) -> None:
    scene = await away(engine)
    await scene.world.put("host", scene.home, state=HostState.MAINTENANCE)
    done = await engine.act(RemoveHost(host_id=scene.home))
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert "no longer the home of db" in rows[done.operation_id]["summary"]
    assert (await scene.world.get("vm", scene.vm))["home_id"] is None
    assert await scene.code() == "NO_HOME"
    assert await scene.duty.go_home() == 0


async def test_a_home_of_another_cluster_or_none_at_all_is_refused(engine: Engine) -> None:
    scene = await away(engine)
    other = new_id()
    row: Row = {"id": other, "name": "c2", "profile": "balanced", "virt_type": "qemu"}
    row |= {"created_at": scene.world.now}

    await scene.world.do(inventory.insert, "cluster", row)
    stranger = await scene.world.host("x1", cluster_id=other)
    for params in (
        EditVm(vm_id=scene.vm, home_id=stranger),
        CreateVm(cluster_id=scene.world.cluster_id, name="new", memory_mib=64, home_id=stranger),
    ):
        refused = await engine.refusal(params)
        assert isinstance(refused, Conflict)
        assert refused.code == "HOME_IN_OTHER_CLUSTER"
        assert refused.next_step
    assert isinstance(await engine.refusal(EditVm(vm_id=scene.vm, home_id=new_id())), NotFound)


async def test_a_home_is_given_changed_and_taken_away(engine: Engine) -> None:
    scene = await away(engine, failback="off", home_id=None)
    await engine.act(EditVm(vm_id=scene.vm, home_id=scene.home, failback="auto"))
    assert (await scene.world.get("vm", scene.vm))["home_id"] == scene.home
    again = await engine.act(EditVm(vm_id=scene.vm, home_id=scene.home))
    rows = {row["id"]: row for row in await engine.rows("operation")}
    assert rows[again.operation_id]["summary"] == "nothing to change"
    await engine.act(EditVm(vm_id=scene.vm, home_id=None))
    assert (await scene.world.get("vm", scene.vm))["home_id"] is None
    made = CreateVm(
        cluster_id=scene.world.cluster_id, name="new", memory_mib=64, home_id=scene.home
    )
    await engine.act(made)
    assert {row["home_id"] for row in await engine.rows("vm")} == {None, scene.home}

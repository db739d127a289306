"""A recovery's VM that has no place: who is stopped for it, once, and how they come back."""

from typing import Any
from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from domain.disarming import DISARMED, DisarmMode
from domain.errors import Refused
from domain.explain import Question
from domain.operations import OperationState, Outcome
from domain.orders import Placement, RunRef
from engine.actions.clusters import ArmCluster, EditCluster
from engine.actions.vms import StopVm
from engine.closing import LOOK_AGAIN
from engine.records.making_room import StoppedForOthers
from engine.records.runs import ref_of
from store import made_room, runs
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.test_explanations import answers
from tests.store.test_recovery_records import Death
from tests.store.test_run_records import order

pytestmark = pytest.mark.store


class Crowded:
    """`h1` is dead with `big` (priority 80, 400 MiB); `h2` is the one host left, and full."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.vms: dict[str, UUID] = {}
        self.runs: dict[str, Row] = {}

    async def build(self, make_room: str = "shutdown", most: int = 10, **small: Any) -> "Crowded":
        """Two small VMs of 500 MiB each run on `h2`; one with the given columns, and `other`."""
        world = self.world
        dead = await world.host("h1")
        self.host = await world.host("h2", memory_mib=1000)
        edit = EditCluster(cluster_id=world.cluster_id, make_room=make_room, make_room_max=most)
        await self.engine.act(edit)
        await self.add("big", dead, priority=80, protected=True, memory_mib=400)
        await self.add("small", self.host, **{"priority": 20, "memory_mib": 500} | small)
        await self.add("other", self.host, priority=90, memory_mib=500)
        self.death = await Death(self.engine, dead).build()
        (restart,) = (await self.death.claim()).restarts
        assert restart.run is None
        self.start, self.licence = restart.operation_id, restart.licence_id
        return self

    async def add(self, name: str, host: UUID, **columns: Any) -> None:
        """A VM that runs."""
        vm_id = await self.world.vm(name, **columns)
        self.vms[name], self.runs[name] = vm_id, await self.world.running(vm_id, host)

    def wish(self) -> PlaceOrder:
        """What the start of `big` asks for."""
        ids = {"licence_id": self.licence, "incident_id": self.death.incident}
        return order(self.vms["big"], self.start, **ids)

    async def place(self) -> Placement:
        """Look for a place for `big`."""
        return await self.engine.runs.place(self.wish())

    async def serves(self) -> None:
        """Place `big`, and have it run."""
        run = (await self.place()).run
        assert run is not None
        await self.engine.runs.begin_start(run)
        await self.engine.runs.started(run)

    async def stops(self) -> list[Row]:
        """Operations that stop VMs."""
        return [op for op in await self.engine.rows("operation") if op["kind"] == "vm.stop"]

    async def ref(self, name: str) -> RunRef:
        """A VM's run as steps have it."""
        return await self.world.do(ref_of, self.runs[name])

    async def stopped(self, name: str = "small") -> None:
        """Carry out the stop of a VM, as its workflow does."""
        await self.engine.runs.begin_stop(await self.ref(name))
        await self.engine.runs.ended(await self.ref(name), "stopped")
        await self.close((await self.stops())[-1]["id"])

    async def close(self, operation_id: UUID) -> None:
        """End an operation."""
        good = Outcome(operation_id=operation_id, state=OperationState.SUCCEEDED, summary="done")
        await self.engine.operations.close(good)

    async def again(self) -> int:
        """One round of the duty that starts what was stopped."""
        duty = StoppedForOthers(self.world.database, self.engine.backend, self.world.clock)
        return await duty.start_again()

    async def starts(self, name: str) -> list[Row]:
        """Operations that start a VM, without those that the world itself made."""
        rows = await self.engine.rows("operation")
        mine = [op for op in rows if op["target_id"] == self.vms[name]]
        return [op for op in mine if op["kind"] == "vm.start" and op["parent_id"] is not None]


async def crowded(engine: Engine, **how: Any) -> Crowded:
    return await Crowded(engine).build(**how)


async def test_a_less_important_vm_is_stopped_and_stays_wanted(engine: Engine) -> None:
    scene = await crowded(engine)
    found = await scene.place()
    assert found.no_room == "small on h2 is being stopped to make room for big"
    (stop,) = await scene.stops()
    assert (stop["target_name"], stop["parent_id"]) == ("small", scene.start)
    assert stop["reason"] == f"made room for big, incident {scene.death.incident}"
    assert (await scene.world.get("vm", scene.vms["small"]))["wanted"]
    (row,) = await engine.rows("made_room")
    assert (row["priority"], row["for_priority"], row["stop_id"]) == (20, 80, stop["id"])


async def test_looking_again_stops_nobody_else(engine: Engine) -> None:
    scene = await crowded(engine)
    told = {(await scene.place()).no_room for _ in range(3)}
    assert len(told) == 1
    assert len(await scene.stops()) == 1


async def test_the_end_of_the_stop_wakes_the_start_which_gets_the_room(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    told = [row for row in await engine.rows("outbox") if row["signal"] == LOOK_AGAIN]
    assert columns(told, "operation_id") == [scene.start]
    run = (await scene.place()).run
    assert run is not None
    assert run.host_name == "h2"


async def test_nobody_else_gets_the_room_that_was_made(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    thief = await scene.world.vm("thief", memory_mib=450)
    operation = await scene.world.operation(thief)
    await scene.world.lock(thief, operation)
    assert (await engine.runs.place(order(thief, operation))).no_room is not None
    assert (await scene.place()).run is not None


@pytest.mark.parametrize(
    "how",
    [
        {"make_room": "off"},
        {"priority": 80},
        {"priority": 81},
        {"may_be_stopped": False},
    ],
    ids=str,
)
async def test_nobody_is_stopped_where_that_is_not_allowed(
    engine: Engine, how: dict[str, Any]
) -> None:
    scene = await crowded(engine, **how)
    assert (await scene.place()).no_room is not None
    assert await scene.stops() == []
    assert await engine.rows("made_room") == []


@pytest.mark.parametrize("mode", [DisarmMode.HOLD, DisarmMode.IGNORE])
async def test_while_the_cluster_is_held_nobody_is_stopped(
    engine: Engine, mode: DisarmMode
) -> None:
    scene = await crowded(engine)
    await engine.act(ArmCluster(cluster_id=scene.world.cluster_id, armed=False, mode=mode))
    await scene.place()
    assert len(await scene.stops()) == int(mode is DisarmMode.IGNORE)


async def test_a_stop_that_has_not_begun_does_not_begin_once_the_cluster_is_held(
    engine: Engine,
) -> None:
    scene = await crowded(engine)
    await scene.place()
    await engine.act(ArmCluster(cluster_id=scene.world.cluster_id, armed=False))
    with pytest.raises(Refused, match="small is not stopped for another") as caught:
        await engine.runs.begin_stop(await scene.ref("small"))
    assert caught.value.code == DISARMED
    await engine.act(ArmCluster(cluster_id=scene.world.cluster_id, armed=True))
    await engine.runs.begin_stop(await scene.ref("small"))
    await engine.act(ArmCluster(cluster_id=scene.world.cluster_id, armed=False))
    await engine.runs.begin_stop(await scene.ref("small"))


async def test_a_vm_in_the_hands_of_another_operation_is_left_alone(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.world.lock(scene.vms["small"], await scene.world.operation(scene.vms["small"]))
    assert (await scene.place()).no_room is not None
    assert await scene.stops() == []


async def test_a_vm_that_a_more_important_one_needs_is_left_alone(engine: Engine) -> None:
    scene = await crowded(engine)
    needs = [scene.vms["small"]]
    await scene.world.vm("web", priority=21, depends_on=needs)
    await scene.place()
    assert await scene.stops() == []


async def claimed(scene: Crowded, name: str = "small") -> bool:
    """Claim a VM past the planner."""
    values: Row = {"id": new_id(), "incident_id": scene.death.incident}
    values |= {"for_vm_id": scene.vms["big"], "for_operation_id": scene.start}
    values |= {"vm_id": scene.vms[name], "run_id": scene.runs[name]["id"]}
    values |= {"host_id": scene.host, "waiting": 1, "owed": 1, "created_at": scene.world.now}
    return await scene.world.do(made_room.claim, values)


@pytest.mark.parametrize(
    "how", [{"make_room": "off"}, {"priority": 80}, {"may_be_stopped": False}], ids=str
)
async def test_the_claim_itself_refuses_what_a_wrong_plan_would_stop(
    engine: Engine, how: dict[str, Any]
) -> None:
    assert not await claimed(await crowded(engine, **how))


async def test_the_claim_takes_no_vm_twice_none_that_stops_and_no_more_than_allowed(
    engine: Engine,
) -> None:
    scene = await crowded(engine, most=1)
    assert await claimed(scene)
    assert not await claimed(scene)
    await scene.add("third", await scene.world.host("h3"), priority=1)
    assert not await claimed(scene, "third")  # one was stopped in this incident
    await scene.world.put("cluster", scene.world.cluster_id, make_room_max=2)
    await scene.world.stopping(scene.runs["third"]["id"])
    assert not await claimed(scene, "third")  # it is being stopped by a person


async def test_it_is_explained_with_the_hosts_that_were_passed_over(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.world.host("h3", memory_mib=100)
    await scene.place()
    told = (await answers(engine, scene.death, Question.MAKE_ROOM))["big"]
    assert (told.chosen, told.rule) == ("stop small on h2", "LEAST_LOSS")
    (rejected,) = told.rejected
    assert rejected.option == "h3"
    assert "0 of 0 VMs" in rejected.why


async def test_what_was_stopped_is_started_again_once_the_other_has_its_place(
    engine: Engine,
) -> None:
    scene = await crowded(engine)
    await scene.place()
    assert await scene.again() == 0
    await scene.stopped()
    assert await scene.again() == 0  # the room is not its own
    await scene.serves()
    assert [await scene.again() for _ in range(2)] == [1, 0]
    (start,) = await scene.starts("small")
    assert start["reason"] == "it was stopped to make room for big, which has its place"
    assert start["incident_id"] is None
    await scene.world.do(made_room.starts_again, start["id"])
    found = await engine.runs.place(order(scene.vms["small"], start["id"]))
    assert found.no_room is not None
    assert len(await scene.stops()) == 1  # it stops nobody itself


async def test_a_start_that_is_given_up_leaves_the_room_to_those_who_made_it(
    engine: Engine,
) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    await scene.close(scene.start)
    assert await scene.again() == 1
    (start,) = await scene.starts("small")
    assert (await engine.runs.place(order(scene.vms["small"], start["id"]))).run is not None


async def test_nothing_is_started_again_while_the_cluster_is_disarmed(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    await scene.serves()
    cluster = scene.world.cluster_id
    await engine.act(ArmCluster(cluster_id=cluster, armed=False))
    assert await scene.again() == 0
    await engine.act(ArmCluster(cluster_id=cluster, armed=True))
    assert await scene.again() == 1
    (start,) = await scene.starts("small")
    await engine.act(ArmCluster(cluster_id=cluster, armed=False))
    with pytest.raises(Refused) as caught:
        await engine.runs.place(order(scene.vms["small"], start["id"]))
    assert caught.value.code == DISARMED


async def test_a_vm_that_nobody_wants_any_more_or_that_runs_is_not_started(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    await scene.serves()
    await scene.world.put("vm", scene.vms["small"], wanted=False)
    assert await scene.again() == 0
    assert await scene.starts("small") == []
    assert columns(await engine.rows("made_room"), "owed") == [None]


async def test_a_stop_that_failed_is_decided_anew_and_owes_nothing(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.close((await scene.stops())[0]["id"])
    await scene.place()  # what it was promised did not help: it is given free
    assert await scene.again() == 0
    assert columns(await engine.rows("made_room"), "owed", "waiting") == [(None, None)]
    await scene.place()
    assert len(await scene.stops()) == 2


async def test_what_counts_is_the_memory_that_a_run_has_taken(engine: Engine) -> None:
    scene = await crowded(engine)
    # It was made larger while it runs: its end frees the 300 MiB with which it was started.
    await scene.world.put("vm_run", scene.runs["small"]["id"], memory_mib=300)
    assert (await scene.place()).no_room is not None
    assert await scene.stops() == []


async def test_nobody_is_started_again_before_the_important_one_runs(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    tries: list[RunRef] = []
    for _ in range(2):
        placed = (await scene.place()).run
        assert placed is not None
        tries.append(placed)
        assert await scene.again() == 0
        await engine.runs.begin_start(placed)
        assert await scene.again() == 0
        await engine.runs.begin_withdraw(scene.start, scene.vms["big"])
        assert await scene.again() == 0
        for _twice in range(2):
            await engine.runs.withdrawn(placed)
        assert await scene.again() == 0  # the room is kept for its next try
        assert columns(await engine.rows("made_room"), "owed", "waiting") == [(1, 1)]
        thief = await scene.world.vm(f"thief-{new_id()}", memory_mib=450)
        operation = await scene.world.operation(thief)
        await scene.world.lock(thief, operation)
        assert (await engine.runs.place(order(thief, operation))).no_room is not None
    await scene.place()
    await engine.runs.withdrawn(tries[-1])  # told once more, late: it has another place
    assert columns(await engine.rows("made_room"), "waiting") == [None]
    await scene.serves()
    assert await scene.again() == 1
    assert len(await scene.stops()) == 1


async def test_a_place_that_is_closed_unclaimed_leaves_the_room_kept(engine: Engine) -> None:
    scene = await crowded(engine)
    await scene.place()
    await scene.stopped()
    await scene.place()
    assert await engine.runs.end_unclaimed(scene.start, scene.vms["big"]) is not None
    assert columns(await engine.rows("made_room"), "waiting") == [1]
    await scene.close(scene.start)
    assert await scene.again() == 1


async def test_a_persons_stop_ends_the_wish(engine: Engine) -> None:
    scene = await crowded(engine)
    await engine.act(StopVm(vm_id=scene.vms["small"]))
    assert not (await scene.world.get("vm", scene.vms["small"]))["wanted"]
    assert await scene.world.do(runs.begin_stop, scene.runs["small"]["id"])

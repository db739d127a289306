"""Rows of a VM that is adopted where it lives: once, after what was read, and only where it may."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from activities.adoptions import Adoption, Standing
from activities.stray_copies import CopyStep
from domain.errors import Conflict, Superseded
from domain.inventory import HostState
from domain.orders import AdoptCopyOrder
from engine.actions.adoptions import AdoptCopy
from engine.actions.operations import CancelOperation
from engine.actions.vm_recovery import RecoverVm
from engine.records.adoptions import AdoptionRecords
from store import observations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


class Case:
    """`db` should run on h1 in generation 1, and a person has it adopted on h2."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.records = AdoptionRecords(engine.world.database, engine.world.clock)
        self.vm = self.host = self.other = UUID(int=0)
        self.run: Row = {}

    async def build(self) -> "Case":
        """Write them."""
        self.host, self.other = await self.world.host("h1"), await self.world.host("h2")
        self.vm = await self.world.vm("db", protected=True)
        self.run = await self.world.running(self.vm, self.host)
        return self

    def wish(self, **how: Any) -> AdoptCopy:
        """What the person asks for."""
        return AdoptCopy(vm_id=self.vm, **{"host_id": self.other} | how)

    async def adoption(self) -> Adoption:
        """Ask for it; what its workflow gives to its steps once the copy is marked."""
        receipt = await self.engine.act(self.wish(), reason="ann moved it")
        (row,) = [r for r in await self.engine.rows("operation") if r["id"] == receipt.operation_id]
        order = AdoptCopyOrder.model_validate(row["order"])
        names = ("operation_id", "attempt", "vm_id", "vm_name", "host", "run")
        step = CopyStep(**{name: getattr(order, name) for name in names}, deadline_s=1.0)
        generation = await self.records.next_generation(step)
        return Adoption(step=step, found=1, generation=generation)

    async def runs(self) -> list[Row]:
        """Runs of the VM, oldest first."""
        return sorted(await self.engine.rows("vm_run"), key=lambda run: int(run["generation"]))

    async def reserved_mib(self) -> tuple[int, int]:
        """What h1 and h2 promise."""
        rows = [await self.world.get("host", host) for host in (self.host, self.other)]
        return rows[0]["memory_reserved_mib"], rows[1]["memory_reserved_mib"]

    async def told(self) -> list[Row]:
        """Events on copies that were adopted."""
        return [e for e in await self.engine.rows("event") if e["type"] == "vm.copy_adopted"]


async def test_the_books_follow_a_copy_once_and_tell_who_wanted_that_and_why(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    long_ago = case.world.now - timedelta(hours=1)
    await case.world.put("vm_run", case.run["id"], started_at=long_ago)
    adoption = await case.adoption()
    assert not await case.records.is_adopted(adoption)
    await case.records.adopted(adoption)
    await case.records.adopted(adoption)
    assert await case.records.is_adopted(adoption)
    old, new = await case.runs()
    assert (old["state"], old["active"], old["end_reason"]) == ("ended", None, "copy adopted")
    assert (new["state"], new["active"], new["generation"]) == ("running", 1, 2)
    assert (new["host_id"], new["epoch"], new["started_at"]) == (case.other, 1, long_ago)
    assert await case.reserved_mib() == (0, 256)
    (event,) = await case.told()
    assert (event["principal"], event["data"]["reason"]) == ("ann", "ann moved it")
    assert (event["data"]["was"], event["data"]["host"]) == ("h1", "h2")


async def test_what_an_earlier_try_has_adopted_is_not_taken_for_what_a_later_one_adopts(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.records.adopted(adoption)
    later = adoption.model_copy(update={"generation": 5})
    assert not await case.records.is_adopted(later)
    with pytest.raises(Superseded):  # its VM runs elsewhere now than when that was ordered
        await case.records.adopted(later)
    assert len(await case.told()) == 1


async def test_a_number_that_is_taken_again_is_only_skipped(engine: Engine) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    again = await case.records.next_generation(adoption.step)
    assert (adoption.generation, again) == (2, 3)
    with pytest.raises(Conflict, match="HOST_STATE_FORBIDS"):
        await case.records.adopted(adoption.model_copy(update={"generation": 4}))
    await case.records.adopted(adoption)
    assert [run["generation"] for run in await case.runs()] == [1, 2]
    assert (await case.world.get("vm", adoption.step.vm_id))["generation"] == 3


async def refused(case: Case, adoption: Adoption, code: str) -> None:
    """The books stay as they are."""
    with pytest.raises(Conflict, match=code):
        await case.records.adopted(adoption)
    (run,) = await case.runs()
    assert (run["state"], await case.reserved_mib()) == ("running", (256, 0))
    assert await case.told() == []


@pytest.mark.parametrize(
    "values", [{"state": "connecting"}, {"state": "maintenance"}, {"epoch": 2}], ids=str
)
async def test_a_host_that_is_not_up_any_more_gets_no_run(engine: Engine, values: Row) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.world.put("host", case.other, **values)
    assert (await case.records.standing(adoption.step)).no_room.startswith("h2 is ")
    await refused(case, adoption, "NO_ROOM")


async def test_a_host_without_room_gets_no_run_and_says_how_much_is_missing(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.world.put("host", case.other, memory_mib=200)
    assert "256 MiB" in (await case.records.standing(adoption.step)).no_room
    await refused(case, adoption, "NO_ROOM")


async def test_a_copy_takes_what_its_run_had_whatever_was_edited_since(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.world.put("vm", case.vm, memory_mib=2048, vcpus=64)
    adoption = await case.adoption()
    assert (await case.records.standing(adoption.step)).no_room == ""
    await case.records.adopted(adoption)
    assert await case.reserved_mib() == (0, 256)
    hosts = [await case.world.get("host", host) for host in (case.host, case.other)]
    assert [host["vcpus_reserved"] for host in hosts] == [0, case.run["vcpus"]]


@pytest.mark.parametrize(
    "values",
    [{"state": "non_responsive"}, {"state": "fencing"}, {"state": "down"}, {"epoch": 2}],
    ids=str,
)
async def test_nothing_is_adopted_once_the_host_that_it_left_is_out_of_service(
    engine: Engine, values: Row
) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.world.put("host", case.host, **values)
    await refused(case, adoption, "HOST_STATE_FORBIDS")


async def test_nothing_is_adopted_once_the_host_that_it_left_was_reconciled(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.world.put("host", case.host, epoch=2)
    await case.world.put("vm_run", case.run["id"], epoch=2)
    await refused(case, adoption, "HOST_STATE_FORBIDS")


@pytest.mark.parametrize("changes", [{"state": "stopping"}, {"state": "starting"}], ids=str)
async def test_a_run_that_moved_on_meanwhile_is_not_ended(engine: Engine, changes: Row) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await case.world.put("vm_run", case.run["id"], **changes)
    for work in (case.records.standing, case.records.next_generation):
        with pytest.raises(Superseded):
            await work(adoption.step)
    with pytest.raises(Superseded):
        await case.records.adopted(adoption)
    assert (await case.told(), len(await case.runs())) == ([], 1)


async def test_an_operation_that_lost_the_vm_adopts_nothing(engine: Engine) -> None:
    case = await Case(engine).build()
    adoption = await case.adoption()
    await engine.act(CancelOperation(operation_id=adoption.step.operation_id))
    with pytest.raises(Superseded):
        await case.records.adopted(adoption)
    assert len(await case.runs()) == 1


async def test_a_further_host_that_shows_the_vm_is_told_unless_it_is_proven_dead(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    third = await case.world.host("h3", state="non_responsive")
    adoption = await case.adoption()
    await case.world.monitor()
    guest = {"vm_id": str(case.vm), "name": "db", "state": "running"}
    plain = {"memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1, "took_s": 0.0}
    samples = [plain | {"host_id": host, "guests": [guest]} for host in (case.other, third)]
    later = case.world.now + timedelta(seconds=1)
    round_ = {"warm": True, "observations": [], "samples": samples, "watched_ms": int, "now": later}
    await case.world.do(observations.record_round, "m1", 1, **round_)
    assert await case.records.standing(adoption.step) == Standing(newest=2, elsewhere=("h3",))
    await case.world.put("host", third, state="down")
    assert (await case.records.standing(adoption.step)).elsewhere == ()


@pytest.mark.parametrize("state", sorted(set(HostState) - {HostState.UP}))
async def test_a_vm_is_adopted_only_on_a_host_that_is_up(engine: Engine, state: HostState) -> None:
    case = await Case(engine).build()
    await case.world.put("host", case.other, state=state)
    found = await engine.refusal(case.wish())
    assert (found.code, found.context["state"]) == ("HOST_STATE_FORBIDS", state)


async def test_whoever_adopts_takes_the_vm_from_its_recovery(engine: Engine) -> None:
    case = await Case(engine).build()
    report = RecoverVm(vm_id=case.vm, run_id=case.run["id"], why="gone", reported_by="m1")
    recovery = (await engine.act(report)).operation_id
    await engine.act(case.wish())
    (row,) = [r for r in await engine.rows("operation") if r["id"] == recovery]
    assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")


async def test_where_it_should_run_and_what_is_no_host_cannot_be_adopted(engine: Engine) -> None:
    case = await Case(engine).build()
    assert (await engine.refusal(case.wish(host_id=case.host))).code == "COPY_IS_THE_RUN"
    assert (await engine.refusal(case.wish(host_id=new_id()))).code == "HOST_NOT_FOUND"
    await case.world.put("host", case.host, state="reconciling")
    assert (await engine.refusal(case.wish())).code == "HOST_NOT_PROVEN_DEAD"

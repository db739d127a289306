"""Rows of a copy that a person ends: told once, closing only what was read, and who may ask."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from activities.stray_copies import CopyStep, EndCopyStep, FoundCopy
from domain.errors import Superseded
from domain.inventory import HostState
from domain.orders import EndCopyOrder
from engine.actions.operations import CancelOperation
from engine.actions.stray_copies import UNREAD, EndCopy
from engine.actions.vm_recovery import RecoverVm
from engine.queries.vms import ShowVm
from engine.records.stray_copies import StrayCopyRecords
from store import observations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


class Case:
    """`db` runs on h1, and a person ends its copy on h2."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.records = StrayCopyRecords(engine.world.database, engine.world.clock)
        self.vm = self.host = self.other = UUID(int=0)
        self.run: Row = {}

    async def build(self) -> "Case":
        """Write them."""
        self.host, self.other = await self.world.host("h1"), await self.world.host("h2")
        self.vm = await self.world.vm("db", protected=True)
        self.run = await self.world.running(self.vm, self.host)
        return self

    def wish(self, **how: Any) -> EndCopy:
        """What the person asks for."""
        return EndCopy(vm_id=self.vm, **{"host_id": self.other} | how)

    async def step(self, **how: Any) -> EndCopyStep:
        """Ask for it; what its workflow then gives to its steps."""
        receipt = await self.engine.act(self.wish(**how), reason="ann started it by hand")
        (row,) = [r for r in await self.engine.rows("operation") if r["id"] == receipt.operation_id]
        order = EndCopyOrder.model_validate(row["order"])
        names = ("operation_id", "attempt", "vm_id", "vm_name", "host", "run", "last_copy")
        step = CopyStep(**{name: getattr(order, name) for name in names}, deadline_s=1.0)
        return EndCopyStep(step=step, found=FoundCopy(generation=1, last=step.last_copy))

    async def told(self) -> list[Row]:
        """Events on copies that were ended."""
        return [e for e in await self.engine.rows("event") if e["type"] == "vm.copy_ended"]


async def test_the_end_of_a_copy_is_told_once_with_who_and_why(engine: Engine) -> None:
    case = await Case(engine).build()
    step = await case.step()
    assert await case.records.newest_generation(step.step) == 1
    await case.records.ended(step, closes=False)
    await case.records.ended(step, closes=False)
    (event,) = await case.told()
    assert (event["principal"], event["data"]["host"]) == ("ann", "h2")
    assert (event["data"]["reason"], event["data"]["last"]) == ("ann started it by hand", False)
    assert (await case.world.run(case.run["id"]))["state"] == "running"


async def test_the_end_of_a_last_copy_closes_the_run_once_and_nobody_wants_the_vm(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    step = await case.step(last_copy=True)
    await case.records.ended(step, closes=True)
    await case.records.ended(step, closes=True)
    run = await case.world.run(case.run["id"])
    assert (run["state"], run["active"], run["end_reason"]) == ("ended", None, "last copy ended")
    assert (await case.world.get("host", case.host))["memory_reserved_mib"] == 0
    assert not (await case.world.get("vm", case.vm))["wanted"]
    assert len(await case.told()) == 1


@pytest.mark.parametrize("changes", [{"state": "stopping"}, {"state": "starting"}], ids=str)
async def test_a_run_that_moved_on_meanwhile_keeps_its_copies(engine: Engine, changes: Row) -> None:
    case = await Case(engine).build()
    step = await case.step(last_copy=True)
    await case.world.put("vm_run", case.run["id"], **changes)
    with pytest.raises(Superseded):
        await case.records.newest_generation(step.step)
    with pytest.raises(Superseded):
        await case.records.ended(step, closes=True)
    assert await case.told() == []


async def test_a_run_in_another_epoch_is_not_closed(engine: Engine) -> None:
    case = await Case(engine).build()
    step = await case.step(last_copy=True)
    await case.world.put("vm_run", case.run["id"], epoch=2)
    with pytest.raises(Superseded):
        await case.records.ended(step, closes=True)
    assert (await case.told(), (await case.world.run(case.run["id"]))["active"]) == ([], 1)


async def test_an_operation_that_lost_the_vm_changes_nothing(engine: Engine) -> None:
    case = await Case(engine).build()
    step = await case.step()
    await engine.act(CancelOperation(operation_id=step.step.operation_id))
    with pytest.raises(Superseded):
        await case.records.newest_generation(step.step)
    with pytest.raises(Superseded):
        await case.records.ended(step, closes=False)


@pytest.mark.parametrize("state", sorted(UNREAD))
async def test_a_host_that_cannot_be_read_is_refused_at_the_door(
    engine: Engine, state: HostState
) -> None:
    case = await Case(engine).build()
    await case.world.put("host", case.other, state=state)
    refused = await engine.refusal(case.wish(last_copy=True))
    assert (refused.code, refused.context["state"]) == ("HOST_STATE_FORBIDS", state)


async def test_only_who_may_end_the_last_copy_takes_the_vm_from_its_recovery(
    engine: Engine,
) -> None:
    case = await Case(engine).build()
    report = RecoverVm(vm_id=case.vm, run_id=case.run["id"], why="gone", reported_by="m1")
    recovery = (await engine.act(report)).operation_id
    assert (await engine.refusal(case.wish())).code == "OBJECT_BUSY"
    await engine.act(case.wish(last_copy=True))
    (row,) = [r for r in await engine.rows("operation") if r["id"] == recovery]
    assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")


async def test_where_it_should_run_and_what_is_no_host_are_refused(engine: Engine) -> None:
    case = await Case(engine).build()
    assert (await engine.refusal(case.wish(host_id=case.host))).code == "COPY_IS_THE_RUN"
    assert (await engine.refusal(case.wish(host_id=new_id()))).code == "HOST_NOT_FOUND"


async def test_a_vm_is_shown_with_the_hosts_that_show_it_and_should_not(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.world.monitor()
    await shown(case, 1, h1=True, h2=True)
    view = await engine.backend.run_query(ShowVm(vm_id=case.vm))
    assert (view.host_name, view.also_seen_on) == ("h1", ("h2",))
    await shown(case, 2, h1=True, h2=False)
    assert (await engine.backend.run_query(ShowVm(vm_id=case.vm))).also_seen_on == ()


async def shown(case: Case, sequence: int, **where: bool) -> None:
    """One round, later than the ones before it, in which these hosts run `db` or not."""
    hosts = {"h1": case.host, "h2": case.other}
    guest = {"vm_id": str(case.vm), "name": "db", "state": "running"}
    plain = {"memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1, "took_s": 0.0}
    await case.world.do(
        observations.record_round,
        "m1",
        sequence,
        warm=True,
        observations=[],
        samples=[
            plain | {"host_id": hosts[name], "guests": [guest] if runs else []}
            for name, runs in where.items()
        ],
        watched_ms=int,
        now=case.world.now + timedelta(seconds=sequence),
    )

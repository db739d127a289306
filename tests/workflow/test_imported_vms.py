"""A guest that is taken over by the whole engine: rows, mark, and a life like any other VM's."""

from uuid import UUID

import pytest

from engine.actions.base import Params
from engine.actions.imports import ImportVm
from engine.actions.vm_config import DeleteVm
from engine.actions.vms import StartVm, StopVm
from store.rows import Row
from tests.fakes import Gate
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def done(engine: Bench, params: Params) -> Row:
    return await engine.ended(await engine.act(params))


def wish(engine: Bench, guest: UUID, name: str = "old") -> ImportVm:
    return ImportVm(host_id=engine.hosts["h1"], guest_id=guest, name=name, protected=True)


async def test_a_running_guest_is_taken_over_and_lives_on_as_a_vm(engine: Bench) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "Old VM")
    ended = await done(engine, wish(engine, guest))
    assert (ended["state"], ended["summary"]) == ("succeeded", "running on h1, now ours")
    (run,) = await engine.rows("vm_run")
    assert (run["vm_id"], run["generation"], run["state"]) == (guest, 1, "running")
    assert (await engine.host("h1"))["memory_reserved_mib"] == 128
    assert (h1.domains[guest].running, h1.domains[guest].claim) == (1, ended["id"])
    assert await engine.broken() == []
    assert (await done(engine, StopVm(vm_id=guest)))["state"] == "succeeded"
    assert h1.domains == {}
    started = await done(engine, StartVm(vm_id=guest, host_id=engine.hosts["h2"]))
    assert started["state"] == "succeeded"
    assert engine.centre.copies(guest) == ["h2"]
    assert engine.centre.hosts["h2"].domains[guest].running == 2
    assert await engine.broken() == []


async def test_a_guest_that_was_down_is_taken_over_and_started_like_any_vm(engine: Bench) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old", running=False)
    assert (await done(engine, wish(engine, guest)))["summary"] == "down on h1, now ours"
    assert await engine.rows("vm_run") == []
    on_h1 = StartVm(vm_id=guest, host_id=engine.hosts["h1"])
    assert (await done(engine, on_h1))["state"] == "succeeded"
    assert (h1.domains[guest].name, h1.domains[guest].running) == ("old", 2)
    assert await engine.broken() == []


async def test_an_imported_vm_comes_back_elsewhere_when_its_host_dies(engine: Bench) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old")
    await done(engine, wish(engine, guest))
    h1.lose_power()
    ended = await engine.ended(await engine.report("h1"))
    assert ended["state"] == "succeeded"
    await engine.idle()
    (host,) = engine.centre.copies(guest)
    assert host in ("h2", "h3")
    assert engine.centre.copies_max[guest] == 1
    assert await engine.broken() == []


async def test_a_guest_that_cannot_be_taken_over_is_left_without_row_and_mark(
    engine: Bench,
) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old")
    h1.domains[guest].unsupported = ("hostdev",)
    ended = await done(engine, wish(engine, guest))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "GUEST_NOT_SUPPORTED")
    assert (await engine.rows("vm"), await engine.rows("entity_lock")) == ([], [])
    assert h1.domains[guest].generation is None
    assert engine.centre.copies(guest) == ["h1"]


async def test_a_cancelled_import_leaves_the_guest_as_it_was_found(engine: Bench) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old")
    gate = Gate()
    engine.centre.before["adopt"] = gate
    operation = await engine.act(wish(engine, guest))
    await gate.reached.wait()
    await engine.workflow(operation).cancel()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "left on h1 as it was found")
    assert (await engine.rows("vm"), await engine.rows("vm_run")) == ([], [])
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0
    assert (h1.domains[guest].generation, engine.centre.copies(guest)) == (None, ["h1"])
    del engine.centre.before["adopt"]
    assert (await done(engine, wish(engine, guest)))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_an_import_whose_host_reboots_meanwhile_is_undone_and_has_failed(
    engine: Bench,
) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old")
    found = h1.domains[guest]

    async def reboots() -> None:
        del engine.centre.before["adopt"]
        h1.lose_power()
        h1.get_power()
        h1.mark = 1

    engine.centre.before["adopt"] = reboots
    ended = await done(engine, wish(engine, guest))
    assert ended["state"] == "failed"
    assert (await engine.rows("vm"), found.generation) == ([], None)
    assert (await engine.host("h1"))["memory_reserved_mib"] == 0


async def test_a_recovery_does_not_wait_for_an_import_and_its_guest_stays_foreign(
    engine: Bench,
) -> None:
    h1 = engine.centre.hosts["h1"]
    guest = engine.centre.add_foreign(h1, "old")
    gate = Gate()
    engine.centre.before["adopt"] = gate
    operation = await engine.act(wish(engine, guest))
    await gate.reached.wait()
    h1.lose_power()
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    imported = await engine.operation(operation)
    assert (imported["state"], imported["reason_code"]) == ("cancelled", "superseded")
    gate.open()
    h1.get_power()
    await engine.idle()
    await engine.workflow(operation).result()
    assert (engine.centre.copies(guest), await engine.rows("vm")) == ([], [])
    assert await engine.broken() == []


async def test_a_deleted_vm_is_gone_and_its_history_stays(engine: Bench) -> None:
    vm = await engine.add_vm("db")
    assert (await engine.ended(await engine.start("db")))["state"] == "succeeded"
    await engine.ended(await engine.stop("db"))
    deleted = await engine.operation(await engine.act(DeleteVm(vm_id=vm)))
    assert deleted["summary"] == "deleted"
    assert await engine.add_vm("db") != vm
    assert len(await engine.rows("vm_run")) == 1
    assert await engine.broken() == []

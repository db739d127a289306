"""A host fails and comes back: its VM goes home once, or later, or not while it is held."""

import pytest

from engine.actions.clusters import EditCluster
from engine.actions.vm_config import EditVm
from engine.records.going_home import GoingHome
from store import failbacks
from store.rows import Row
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def home_is_back(engine: Bench) -> GoingHome:
    """`db` was recovered from h1, its home, which serves again."""
    await engine.act(EditCluster(cluster_id=engine.cluster_id, failback_after_s=0))
    vm_id = await engine.add_vm("db", "h1")
    await engine.act(EditVm(vm_id=vm_id, home_id=engine.hosts["h1"], failback="auto"))
    h1 = engine.centre.hosts["h1"]
    h1.lose_power()
    await engine.ended(await engine.report("h1"))
    assert engine.copies("db") != ["h1"]
    h1.get_power()
    await engine.ended(await engine.activate("h1"))
    return GoingHome(engine.database, engine.backend)


async def look(engine: Bench, duty: GoingHome) -> int:
    """One round of the duty; what it has ordered is told to Temporal."""
    ordered = await duty.go_home()
    await engine.backend.close()
    return ordered


async def kept(engine: Bench) -> Row | None:
    """What is remembered of the VM's going home."""
    return await engine.database.read(lambda c: failbacks.of_vm(c, engine.vms["db"]))


async def moves(engine: Bench) -> list[Row]:
    """Migrations, oldest first, each once it has ended."""
    found = [op for op in await engine.rows("operation") if op["kind"] == "vm.migrate"]
    return [await engine.ended(op["id"]) for op in found]


async def test_a_recovered_vm_goes_home_once_when_its_home_is_back(engine: Bench) -> None:
    duty = await home_is_back(engine)
    assert [await look(engine, duty) for _ in range(2)] == [1, 0]
    (move,) = await moves(engine)
    assert (move["state"], move["reason"]) == ("succeeded", "failback")
    assert engine.copies("db") == ["h1"]
    assert [await look(engine, duty) for _ in range(2)] == [0, 0]
    assert await kept(engine) is None
    assert await engine.broken() == []


async def test_a_move_home_that_libvirt_refuses_is_tried_again_later(engine: Bench) -> None:
    duty = await home_is_back(engine)
    engine.centre.refusing[engine.vms["db"]] = 1
    assert await look(engine, duty) == 1
    (move,) = await moves(engine)
    assert move["state"] == "failed"
    assert [await look(engine, duty) for _ in range(3)] == [0, 0, 0]
    row = await kept(engine)
    assert row is not None
    assert (row["failures"], row["wait_s"]) == (1, 60)
    assert row["code"] == move["problem"]["code"]
    assert engine.copies("db") != ["h1"]
    assert await engine.broken() == []


async def test_while_the_cluster_is_disarmed_nothing_goes_home(engine: Bench) -> None:
    duty = await home_is_back(engine)
    await engine.arm(False)
    assert [await look(engine, duty) for _ in range(2)] == [0, 0]
    assert await moves(engine) == []
    await engine.arm(True)
    assert await look(engine, duty) == 1
    await moves(engine)
    assert engine.copies("db") == ["h1"]


async def test_a_vm_that_a_person_moved_away_rests_there_until_its_host_fails(
    engine: Bench,
) -> None:
    duty = await home_is_back(engine)
    assert await look(engine, duty) == 1
    await moves(engine)
    await engine.ended(await engine.migrate("db", "h2"))
    assert await look(engine, duty) == 0
    vm = next(row for row in await engine.rows("vm") if row["name"] == "db")
    assert vm["failback_rests"]
    engine.centre.hosts["h2"].lose_power()
    await engine.ended(await engine.report("h2"))
    vm = next(row for row in await engine.rows("vm") if row["name"] == "db")
    assert not vm["failback_rests"]
    assert engine.copies("db") == ["h1"], "a start prefers its home"
    assert await engine.broken() == []

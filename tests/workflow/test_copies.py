"""Never two copies: late starts, and a planted bug that the counting of copies must catch."""

from typing import Any

import pytest

from store import runs
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.test_recover_held import a_certificate_is_voided_before_the_starts

pytestmark = pytest.mark.workflow


async def test_a_start_frozen_before_create_cannot_reach_the_next_boot_of_its_host(
    engine: Bench,
) -> None:
    await engine.add_vm("db")
    gate = engine.centre.before["create"] = Gate()
    late = await engine.start("db", "h1")
    await gate.reached.wait()
    engine.centre.before.clear()
    engine.centre.hosts["h1"].reachable = False
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    elsewhere = engine.copies("db")
    engine.centre.hosts["h1"].get_power()
    engine.centre.hosts["h1"].reachable = True
    gate.open()
    await engine.workflow(late).result()
    assert len(elsewhere) == 1
    assert engine.copies("db") == elsewhere
    assert ((await engine.operation(late))["reason_code"]) == "superseded"
    assert await engine.broken() == []


async def test_a_start_whose_run_is_closed_after_the_claim_takes_its_copy_away_again(
    engine: Bench,
) -> None:
    await engine.add_vm("db")
    gate = engine.centre.before["create"] = Gate()
    operation = await engine.start("db", "h1")
    await gate.reached.wait()
    (run,) = await engine.rows("vm_run")
    await engine.close_run(run["id"])
    gate.open()
    assert (await engine.ended(operation))["state"] == "cancelled"
    assert engine.copies("db") == []
    assert await engine.broken() == []


async def test_without_the_check_of_the_certificate_a_second_copy_is_started_and_counted(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def allowed(*_args: Any) -> bool:
        return True

    monkeypatch.setattr(runs, "begin_start", allowed)
    monkeypatch.setattr(runs, "started", allowed)
    await a_certificate_is_voided_before_the_starts(engine)
    assert any(why.startswith("one_copy_at_most: db had 2") for why in await engine.broken())

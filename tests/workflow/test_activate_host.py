"""Bringing hosts into service: switched on, reconciled, admitted with a new epoch."""

import pytest

from domain.readings import DomainState
from tests.fakes import FakeDomain
from tests.workflow import scenarios
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def test_a_host_is_switched_on_reconciled_and_admitted_with_a_new_epoch(
    engine: Bench,
) -> None:
    ended = await engine.operation(await scenarios.a_host_is_activated(engine))
    host = await engine.host("h1")
    assert ended["state"] == "succeeded", ended
    assert (host["state"], host["epoch"], engine.centre.hosts["h1"].mark) == ("up", 2, 2)
    assert await engine.broken() == []


async def test_a_host_that_never_answers_is_left_out_with_the_reason(engine: Bench) -> None:
    operation = await scenarios.a_host_that_never_answers_is_left_out_of_service(engine)
    ended, host = await engine.operation(operation), await engine.host("h1")
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "HOST_NEVER_ANSWERED")
    assert host["state"] == "non_operational"
    assert "did not answer" in host["state_reason"]
    assert await engine.broken() == []


async def test_a_cancelled_activation_leaves_the_host_out_of_service(engine: Bench) -> None:
    ended = await engine.operation(await scenarios.an_activation_is_cancelled(engine))
    assert (ended["state"], ended["summary"]) == ("cancelled", "h1 is out of service")
    assert (await engine.host("h1"))["state"] == "non_operational"
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_host_out_of_service_can_be_activated_again(engine: Bench) -> None:
    await scenarios.an_activation_is_cancelled(engine)
    assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"
    assert (await engine.host("h1"))["state"] == "up"
    assert await engine.broken() == []


async def test_a_host_that_starts_our_guests_by_itself_is_refused(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1", protected=False)
    engine.centre.hosts["h1"].lose_power()
    await engine.ended(await engine.report("h1"))
    engine.centre.hosts["h1"].domains[vm_id].autostart = True
    ended = await engine.ended(await engine.activate("h1"))
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "HOST_AUTOSTART")
    assert (await engine.host("h1"))["state"] == "non_operational"
    assert await engine.broken() == []


async def test_a_domain_without_our_metadata_is_named_and_left_alone(engine: Bench) -> None:
    foreign = FakeDomain("theirs", 64, None, None, state=DomainState.RUNNING)
    vm_id = await engine.add_vm("db")
    engine.centre.hosts["h1"].lose_power()
    await engine.ended(await engine.report("h1"))
    engine.centre.hosts["h1"].domains[vm_id] = foreign
    ended = await engine.ended(await engine.activate("h1"))
    assert (ended["state"], "left alone theirs" in ended["summary"]) == ("succeeded", True)
    assert foreign.state is DomainState.RUNNING

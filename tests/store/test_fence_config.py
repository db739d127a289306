"""Fence devices are changed and removed: checked as a whole, secrets sealed and never told."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from domain.operations import OperationState, Outcome
from domain.profiles import Profile
from engine.actions.clusters import EditCluster
from engine.actions.fence_devices import AddFenceDevice, EditFenceDevice, RemoveFenceDevice
from engine.actions.rehearsals import RehearseFencing
from engine.queries.inventory import ListFenceDevices, ListHosts
from tests.store.engine_room import Engine
from tests.store.test_inventory_hosts import event_of, summary_of

pytestmark = pytest.mark.store

SEALED = b"password=hunter2"[::-1]


async def device(engine: Engine, **values: Any) -> UUID:
    """A device with one option and one secret, which was read an hour ago."""
    host_id = values.pop("host_id", None) or await engine.world.host()
    device_id = await engine.world.device(host_id)
    row: dict[str, Any] = {"options": {"ip": "127.0.0.1"}, "secrets": SEALED}
    row |= {"last_reading": "on", "last_read_at": engine.world.now}
    await engine.world.put("fence_device", device_id, **row | values)
    return device_id


async def test_options_are_merged_and_null_takes_one_away(engine: Engine) -> None:
    device_id = await device(engine, options={"ip": "127.0.0.1", "username": "a"})
    change = {"ip": "127.0.0.2", "username": None}
    receipt = await engine.act(EditFenceDevice(fence_device_id=device_id, options=change))
    row = await engine.world.get("fence_device", device_id)
    assert (row["options"], row["secrets"]) == ({"ip": "127.0.0.2"}, SEALED)
    assert (row["last_reading"], row["last_read_at"]) == (None, None)
    event = await event_of(engine, receipt.operation_id)
    assert event["before"] == {"options": {"ip": "127.0.0.1", "username": "a"}}
    assert event["after"] == {"options": {"ip": "127.0.0.2"}}


async def test_a_changed_deadline_leaves_the_last_reading(engine: Engine) -> None:
    device_id = await device(engine)
    await engine.act(EditFenceDevice(fence_device_id=device_id, deadline_s=3.5))
    row = await engine.world.get("fence_device", device_id)
    assert (row["deadline_s"], row["last_reading"]) == (3.5, "on")


async def test_a_new_secret_is_sealed_and_told_by_its_name_alone(engine: Engine) -> None:
    device_id = await device(engine)
    secrets = {"password": SecretStr("sesame")}
    receipt = await engine.act(EditFenceDevice(fence_device_id=device_id, secrets=secrets))
    row = await engine.world.get("fence_device", device_id)
    assert (row["secrets"], row["last_reading"]) == (b"password=sesame"[::-1], None)
    event = await event_of(engine, receipt.operation_id)
    assert (event["before"], event["after"]) == ({}, {"secrets_changed": ["password"]})
    everything = await engine.everything() | {"fence_device": [row | {"secrets": b""}]}
    assert [word for word in ("sesame", "hunter2") if word in str(everything)] == []


async def test_the_same_secret_again_changes_nothing(engine: Engine) -> None:
    device_id = await device(engine)
    same = EditFenceDevice(fence_device_id=device_id, secrets={"password": SecretStr("hunter2")})
    assert await summary_of(engine, same) == "nothing to change"
    assert (await engine.world.get("fence_device", device_id))["version"] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"agent": "fence_nothing"}, "FENCE_AGENT_UNKNOWN"),
        ({"options": {"warp": "9"}}, "FENCE_AGENT_UNKNOWN"),
        ({"secrets": {"pin": "1234"}}, "FENCE_OPTION_UNKNOWN"),
    ],
    ids=["agent", "options", "secrets"],
)
async def test_a_change_that_the_agent_does_not_take_is_refused(
    engine: Engine, change: dict[str, Any], code: str
) -> None:
    device_id = await device(engine)
    assert (await engine.refusal(EditFenceDevice(fence_device_id=device_id, **change))).code == code


async def test_the_kept_secrets_are_checked_with_the_new_options(engine: Engine) -> None:
    device_id = await device(engine, secrets=b"pin=1234"[::-1])
    params = EditFenceDevice(fence_device_id=device_id, options={"username": "a"})
    assert (await engine.refusal(params)).code == "FENCE_OPTION_UNKNOWN"


async def test_secrets_that_cannot_be_opened_are_entered_again(engine: Engine) -> None:
    device_id = await device(engine, secrets=b"sealed")
    await engine.act(EditFenceDevice(fence_device_id=device_id, name="bmc9"))
    moved = EditFenceDevice(fence_device_id=device_id, options={"ip": "127.0.0.9"})
    assert (await engine.refusal(moved)).code == "SECRET_KEY_MISMATCH"
    again = {"password": SecretStr("sesame")}
    await engine.act(EditFenceDevice(fence_device_id=device_id, secrets=again))
    row = await engine.world.get("fence_device", device_id)
    assert row["secrets"] == b"password=sesame"[::-1]


async def test_a_device_is_corrected_but_not_removed_while_its_host_is_recovered(
    engine: Engine,
) -> None:
    world = engine.world
    host_id = await world.host()
    device_id = await device(engine, host_id=host_id)
    await world.take("host", host_id, await world.operation(kind="host.recover"))
    secrets = {"password": SecretStr("sesame")}
    await engine.act(EditFenceDevice(fence_device_id=device_id, secrets=secrets))
    await engine.act(AddFenceDevice(host_id=host_id, name="bmc2", agent="fence_ipmilan"))
    refused = await engine.refusal(RemoveFenceDevice(fence_device_id=device_id))
    assert refused.code == "OBJECT_BUSY"


async def test_no_device_is_added_to_a_host_while_its_devices_are_rehearsed(
    engine: Engine,
) -> None:
    world = engine.world
    host_id = await world.host(state="maintenance")
    await device(engine, host_id=host_id)
    rehearsal = (await engine.act(RehearseFencing(host_id=host_id))).operation_id
    more = AddFenceDevice(host_id=host_id, name="bmc2", agent="fence_ipmilan")
    refused = await engine.refusal(more)
    assert (refused.code, refused.context["holder_operation_id"]) == ("OBJECT_BUSY", str(rehearsal))
    assert len(await engine.rows("fence_device")) == 1
    await engine.operations.close(
        Outcome(operation_id=rehearsal, state=OperationState.SUCCEEDED, summary="rehearsed")
    )
    await engine.act(more)


async def test_the_last_device_goes_with_a_warning_that_counts_protected_vms(
    engine: Engine,
) -> None:
    world = engine.world
    host_id = await world.host()
    first, second = await world.device(host_id, "bmc1"), await world.device(host_id, "bmc2")
    for number in range(3):
        await world.vm(f"vm{number}", protected=number > 0)
    assert await summary_of(engine, RemoveFenceDevice(fence_device_id=first)) == "removed"
    summary = await summary_of(engine, RemoveFenceDevice(fence_device_id=second))
    assert summary.startswith("removed; warning: h1 has none left")
    assert "2 protected VMs" in summary
    assert await engine.rows("fence_device") == []


async def test_the_last_device_of_a_cluster_without_protected_vms_goes_with_less_said(
    engine: Engine,
) -> None:
    device_id = await device(engine)
    summary = await summary_of(engine, RemoveFenceDevice(fence_device_id=device_id))
    assert summary == "removed; warning: h1 has none left, so its death cannot be proven"


async def test_a_removal_that_leaves_too_few_proofs_says_so(engine: Engine) -> None:
    world = engine.world
    host_id = await world.host()
    first = await world.device(host_id, "bmc1")
    await world.device(host_id, "bmc2")
    (cluster,) = await engine.rows("cluster")
    await engine.act(EditCluster(cluster_id=cluster["id"], profile=Profile.CAREFUL))
    summary = await summary_of(engine, RemoveFenceDevice(fence_device_id=first))
    assert summary == (
        "removed; warning: h1 has 1 left of the 2 that its profile wants,"
        " so its death cannot be proven"
    )


async def test_a_removal_that_makes_a_host_block_on_power_loss_says_so(engine: Engine) -> None:
    host_id = await engine.world.host()
    own = await engine.world.device(host_id, "bmc1")
    await engine.world.device(host_id, "bmc2")
    await engine.act(EditFenceDevice(fence_device_id=own, shares_power=False, level=2))
    summary = await summary_of(engine, RemoveFenceDevice(fence_device_id=own))
    assert summary.startswith("removed; warning: h1 now blocks on power loss")


async def test_a_removal_that_makes_a_fence_too_long_is_refused_with_the_numbers(
    engine: Engine,
) -> None:
    """The last level is tried three times: without the quick one that is the slow one."""
    host_id = await engine.world.host()
    slow = await engine.world.device(host_id, "slow")
    quick = await engine.world.device(host_id, "quick")
    await engine.act(EditFenceDevice(fence_device_id=quick, level=2, deadline_s=1))
    await engine.act(EditFenceDevice(fence_device_id=slow, deadline_s=35))
    refused = await engine.refusal(RemoveFenceDevice(fence_device_id=quick))
    assert refused.code == "FENCE_BUDGET_EXCEEDED"
    assert "without quick a fence of h1 could take" in refused.detail
    assert "--fence-limit" in refused.next_step
    assert len(await engine.rows("fence_device")) == 2
    summary = await summary_of(engine, RemoveFenceDevice(fence_device_id=slow))
    assert summary == "removed", "what is left is quicker"


async def test_level_delay_and_retries_are_kept_changed_and_told(engine: Engine) -> None:
    host_id = await engine.world.host()
    place: dict[str, Any] = {"level": 2, "delay_s": 1.5, "retries": 1}
    await engine.act(AddFenceDevice(host_id=host_id, name="pdu", agent="fence_ipmilan", **place))
    (row,) = await engine.rows("fence_device")
    assert {name: row[name] for name in place} == place
    moved = EditFenceDevice(fence_device_id=row["id"], level=1, delay_s=0, retries=0)
    receipt = await engine.act(moved)
    (known,) = await engine.fences.devices(host_id)
    assert (known.level, known.delay_s, known.retries) == (1, 0, 0)
    event = await event_of(engine, receipt.operation_id)
    assert (event["before"], event["after"]) == (place, {"level": 1, "delay_s": 0, "retries": 0})


async def test_a_device_from_before_there_were_levels_is_on_the_first(engine: Engine) -> None:
    device_id = await device(engine)
    row = await engine.world.get("fence_device", device_id)
    assert (row["level"], row["delay_s"], row["retries"]) == (1, 0, 0)


async def test_a_device_that_makes_a_fence_too_long_is_refused_with_numbers_and_a_way_out(
    engine: Engine,
) -> None:
    host_id = await engine.world.host()
    slow = AddFenceDevice(host_id=host_id, name="bmc", agent="fence_ipmilan", deadline_s=60)
    refused = await engine.refusal(slow)
    assert (refused.code, refused.context["budget_s"], refused.context["limit_s"]) == (
        "FENCE_BUDGET_EXCEEDED",
        574.5,
        300.0,
    )
    assert refused.detail == (
        "a fence of h1 could take 574.5 s (level 1 574.5 s, tried 3 times); cluster c1 allows 300 s"
    )
    assert "holdfast cluster edit c1 --fence-limit 574s" in (refused.next_step or "")
    assert await engine.rows("fence_device") == []
    limit = EditCluster(cluster_id=engine.world.cluster_id, fence_limit_s=600)
    await engine.act(limit)
    await engine.act(slow)


async def test_levels_add_up_and_one_device_too_many_is_refused(engine: Engine) -> None:
    host_id = await engine.world.host()
    for level in (1, 2, 3, 4, 5):
        name = f"d{level}"
        device = AddFenceDevice(host_id=host_id, name=name, agent="fence_ipmilan", level=level)
        await engine.act(device)
    over = AddFenceDevice(host_id=host_id, name="d6", agent="fence_ipmilan", level=6)
    assert (await engine.refusal(over)).code == "FENCE_BUDGET_EXCEEDED"
    beside = AddFenceDevice(host_id=host_id, name="d6", agent="fence_ipmilan", level=5)
    await engine.act(beside)


async def test_a_host_that_is_too_slow_already_may_be_renamed_and_made_quicker(
    engine: Engine,
) -> None:
    device_id = await device(engine, deadline_s=200.0)
    await engine.act(EditFenceDevice(fence_device_id=device_id, name="bmc9"))
    await engine.act(EditFenceDevice(fence_device_id=device_id, deadline_s=100))
    slower = EditFenceDevice(fence_device_id=device_id, deadline_s=101)
    assert (await engine.refusal(slower)).code == "FENCE_BUDGET_EXCEEDED"


async def test_a_limit_that_a_host_of_the_cluster_exceeds_is_refused(engine: Engine) -> None:
    await device(engine)
    edit = EditCluster(cluster_id=engine.world.cluster_id, fence_limit_s=100)
    refused = await engine.refusal(edit)
    assert (refused.code, refused.context["budget_s"]) == ("FENCE_BUDGET_EXCEEDED", 124.5)
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, fence_limit_s=125))


async def test_a_hosts_budget_is_shown_with_its_levels_and_limit(engine: Engine) -> None:
    host_id = await engine.world.host()
    await engine.world.host("h2")
    for name, level in (("bmc", 1), ("pdu-a", 2), ("pdu-b", 2)):
        place = AddFenceDevice(host_id=host_id, name=name, agent="fence_ipmilan", level=level)
        await engine.act(place)
    page = await engine.backend.run_query(ListHosts())
    first, second = (host.fencing for host in page.items)
    assert [(each.level, each.devices, each.budget_s) for each in first.levels] == [
        (1, 1, 40.5),
        (2, 2, 124.5),
    ]
    assert (first.budget_s, first.limit_s) == (165.0, 300.0)
    assert (second.budget_s, second.levels) == (0.0, ())
    devices = await engine.backend.run_query(ListFenceDevices())
    assert {one.host_budget_s for one in devices.items} == {165.0}


async def test_a_host_blocks_on_power_loss_until_a_device_has_a_supply_of_its_own(
    engine: Engine,
) -> None:
    device_id = await device(engine)

    async def blocks() -> bool:
        (host,) = (await engine.backend.run_query(ListHosts())).items
        shown: bool = host.fencing.blocks_on_power_loss
        return shown

    assert await blocks()
    await engine.act(EditFenceDevice(fence_device_id=device_id, shares_power=False))
    assert not await blocks()
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, profile=Profile.CAREFUL))
    assert await blocks()

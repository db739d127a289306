"""What the monitor makes of answers, silence and power readings, over the real store."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from domain.inventory import PowerReading
from engine.clock import utc_now
from engine.delivery import Delivery
from store import incidents, observations
from store.rows import Row
from store.schema import event, outbox
from store.schema_ha import death_certificate
from tests.unit.worker.monitor_scene import (
    GUEST,
    REFUSED,
    SILENT,
    DeadTemporal,
    Scene,
    reading,
    until,
)

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]


async def test_a_host_that_answers_stays_up_and_its_power_is_not_asked(scene: Scene) -> None:
    async with scene.watched():
        await scene.rounds(5)
    assert await scene.state() == "up"
    assert (scene.power.asked, await scene.incidents()) == (Counter(), [])
    row = await scene.seen()
    assert (row["verdict"], row["misses"], row["boot_mark"]) == ("up", 0, 1)


async def test_a_silent_host_keeps_the_number_of_the_round_in_which_it_answered_last(
    scene: Scene,
) -> None:
    async with scene.watched():
        await scene.rounds(3)
        scene.answer(SILENT)
        await scene.rounds(3)
        before = await scene.seen()
    (monitor,) = await scene.world.do(observations.monitors)
    assert 0 < before["heard_sequence"] < before["sequence"]
    async with scene.watched():
        scene.answer(reading())
        await scene.rounds(3)
        after = await scene.seen()
    (again,) = await scene.world.do(observations.monitors)
    assert after["heard_sequence"] > monitor["sequence"]
    assert again["watched_ms"] > monitor["watched_ms"] > 0


async def test_each_answered_poll_leaves_a_sample_with_its_guests(scene: Scene) -> None:
    async def samples() -> list[Row]:
        since = utc_now() - timedelta(hours=1)
        return await scene.world.do(observations.samples, scene.host_id, since, 10)

    async def three() -> bool:
        return len(await samples()) >= 3

    async with scene.watched():
        await until(three)
    newest = (await samples())[0]
    assert (newest["memory_free_mib"], newest["cpus"]) == (512, 4)
    assert newest["guests"] == [GUEST.model_dump(mode="json")]


async def test_samples_older_than_an_hour_are_forgotten(scene: Scene) -> None:
    row: Row = {"host_id": scene.host_id, "memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1}
    row |= {"took_s": 0.0, "guests": []}
    old = utc_now() - timedelta(hours=2)
    await scene.world.monitor()
    seen = {"watched_ms": int, "warm": True, "observations": [], "samples": [row], "now": old}
    await scene.world.do(observations.record_round, "m1", 1, **seen)

    async def forgotten() -> bool:
        kept = await scene.world.do(observations.samples, scene.host_id, old, 1000)
        return bool(kept) and all(item["at"] > old for item in kept)

    async with scene.watched():
        await until(forgotten)


async def test_the_first_miss_moves_the_host_to_connecting_and_asks_its_power(
    scene: Scene,
) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] >= 3)
    assert await scene.state() == "connecting"
    assert await scene.incidents() == []
    types = [row["type"] for row in await scene.rows(event) if row["subject_type"] == "host"]
    assert types == ["host.missed"]


async def test_a_silent_host_whose_power_reads_off_is_reported_without_waiting(
    scene: Scene,
) -> None:
    scene.power.readings["bmc1"] = PowerReading.OFF
    async with scene.watched():
        await scene.rounds(2)
        scene.answer(SILENT)
        incident = await scene.incident()
    assert (incident["host_id"], incident["epoch"], incident["open"]) == (scene.host_id, 1, 1)
    assert incident["reported_by"] == "m1"
    assert incident["last_answer_at"] is not None
    assert "power reads off" in incident["why"]
    (fact,) = await scene.world.do(incidents.evidence_of, incident["id"])
    found = (fact["kind"], fact["device"], fact["verdict"], fact["epoch"])
    assert found == ("power_reading", "bmc1", "off", 1)
    (operation,) = await scene.operations()
    assert (operation["kind"], operation["priority"]) == ("host.recover", 1)
    assert operation["order"]["host"]["epoch"] == 1
    assert scene.delivered.ids == [operation["id"]]
    assert await scene.state() == "non_responsive"


async def test_while_its_power_reads_on_a_silent_host_is_given_its_time(scene: Scene) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] >= 5)
    assert (await scene.incidents(), await scene.operations()) == ([], [])


@pytest.mark.usefixtures("impatient")
async def test_silence_past_the_limit_is_reported_with_what_the_power_said(scene: Scene) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        incident = await scene.incident()
    assert incident["why"].startswith("silent for")
    (fact,) = await scene.world.do(incidents.evidence_of, incident["id"])
    assert (fact["device"], fact["verdict"]) == ("bmc1", "on")


@pytest.mark.usefixtures("impatient")
async def test_a_host_without_a_power_controller_is_reported_all_the_same(scene: Scene) -> None:
    other = await scene.world.host("h2")
    scene.answer(SILENT, "h2")
    async with scene.watched():
        incident = await scene.incident()
    assert incident["host_id"] == other
    assert await scene.world.do(incidents.evidence_of, incident["id"]) == []


async def test_power_counts_as_off_only_when_every_supply_reads_off(scene: Scene) -> None:
    await scene.world.device(scene.host_id, "bmc2")
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc2"] >= 4)
        assert await scene.incidents() == []
        scene.power.readings["bmc2"] = PowerReading.OFF
        await scene.incident()


@pytest.mark.usefixtures("impatient")
async def test_a_refused_port_is_a_miss_but_never_a_dead_host(scene: Scene) -> None:
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(REFUSED)

    async def counted() -> bool:
        found = await scene.world.do(observations.latest, scene.host_id)
        return bool(found) and found[0]["misses"] >= 20

    async with scene.watched():
        await until(counted)
    assert await scene.state() == "connecting"
    assert (await scene.seen())["verdict"] == "refused"
    assert (scene.power.asked, await scene.incidents()) == (Counter(), [])


async def test_a_failure_is_one_incident_however_often_it_is_reported(scene: Scene) -> None:
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(SILENT)

    async def reported() -> bool:
        return [row["reports"] >= 4 for row in await scene.incidents()] == [True]

    async with scene.watched():
        await until(reported)
    assert [row["kind"] for row in await scene.operations()] == ["host.recover"]


async def test_a_failure_is_accepted_while_temporal_is_down_and_started_once_it_is_back(
    scene: Scene,
) -> None:
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(SILENT)
    temporal = DeadTemporal()
    delivery = Delivery(scene.database, temporal, clock=utc_now)

    async def postponed() -> bool:
        return [row["tries"] for row in await scene.rows(outbox)] == [1]

    async with scene.watched(delivery):
        await until(postponed)
    (operation,) = await scene.operations()
    assert operation["state"] == "pending"
    (row,) = await scene.rows(outbox)
    assert (row["operation_id"], row["done_at"]) == (operation["id"], None)
    assert row["last_error"] == "nobody listens"
    temporal.dead = False
    later = Delivery(scene.database, temporal, clock=lambda: utc_now() + timedelta(minutes=1))
    assert await later.deliver_due() == 1
    assert temporal.started == [f"op/{operation['id']}/1"]


async def test_a_host_that_answers_again_is_up_again(scene: Scene) -> None:
    async def connecting() -> bool:
        return await scene.state() == "connecting"

    async def up() -> bool:
        return await scene.state() == "up"

    scene.answer(SILENT)
    async with scene.watched():
        await until(connecting)
        scene.answer(reading())
        await until(up)
        await scene.rounds(2)
    row = await scene.seen()
    assert (row["verdict"], row["misses"]) == ("up", 0)


async def test_a_host_held_to_be_dead_that_answers_in_the_same_boot_voids_its_certificate(
    scene: Scene,
) -> None:
    await scene.world.certificate(scene.host_id)

    async def void() -> bool:
        return [row["state"] for row in await scene.rows(death_certificate)] == ["void"]

    async with scene.watched():
        await until(void)
        await scene.rounds(3)
    alarms = [row["type"] for row in await scene.rows(event) if "certificate" in row["type"]]
    assert alarms == ["certificate.voided"]


async def test_a_host_held_to_be_dead_that_answers_after_a_reboot_leaves_the_certificate_true(
    scene: Scene,
) -> None:
    await scene.world.certificate(scene.host_id)
    scene.answer(reading(mark=None))
    async with scene.watched():
        await scene.rounds(5)
    assert [row["state"] for row in await scene.rows(death_certificate)] == ["valid"]
    assert await scene.state() == "down"


@pytest.mark.parametrize("before", ["up", "connecting"])
@pytest.mark.parametrize("mark", [None, 7])
async def test_a_host_in_service_without_the_mark_of_its_boot_is_reconciled(
    scene: Scene, before: str, mark: int | None
) -> None:
    await scene.world.put("host", scene.host_id, state=before)
    scene.answer(reading(mark))
    async with scene.watched():
        await until(scene.operations)
        await scene.rounds(3)
    (operation,) = await scene.operations()
    assert operation["kind"] == "host.activate"
    assert operation["principal"] == "monitor:m1"
    assert await scene.state() == "reconciling"
    # Not even for one poll was it up: a VM could have been placed on it.
    assert "host.answered" not in {row["type"] for row in await scene.rows(event)}


async def test_a_slow_power_controller_holds_up_no_poll_and_is_asked_once_at_a_time(
    scene: Scene,
) -> None:
    scene.power.answering.clear()
    scene.power.readings["bmc1"] = PowerReading.OFF
    await scene.world.host("h2")
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] == 1)
        await scene.rounds(10)
        assert scene.hosts.polls["qemu+tcp://h2/system"] >= 10
        assert scene.power.asked["bmc1"] == 1
        scene.power.answering.set()
        await scene.incident()


async def test_a_controller_that_says_off_after_its_host_answered_again_is_not_believed(
    scene: Scene,
) -> None:
    scene.power.answering.clear()
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] == 1)
        scene.answer(reading())
        await scene.rounds(3)
        scene.power.answering.set()
        await scene.rounds(5)
    assert await scene.incidents() == []


async def test_without_the_database_the_hosts_are_polled_on(scene: Scene) -> None:
    async def recorded() -> int:
        (row,) = await scene.world.do(observations.monitors)
        count: int = row["rounds"]
        return count

    async with scene.watched():
        await scene.rounds(3)
        scene.database.away = True
        await scene.rounds(10)
        scene.database.away = False
        before = await recorded()

        async def more() -> bool:
            return await recorded() > before + 2

        await until(more)


async def test_a_host_that_died_while_the_database_was_away_is_reported_when_it_is_back(
    scene: Scene,
) -> None:
    scene.power.readings["bmc1"] = PowerReading.OFF
    async with scene.watched():
        await scene.rounds(3)
        scene.database.away = True
        scene.answer(SILENT)
        await scene.rounds(5)
        scene.database.away = False
        await scene.incident()


async def test_a_monitor_that_starts_without_the_database_waits_for_it(scene: Scene) -> None:
    scene.database.away = True
    async with scene.watched():
        await asyncio.sleep(0)
        assert scene.polls == 0
        scene.database.away = False
        await scene.rounds(2)


async def test_a_host_that_was_never_admitted_is_not_polled(scene: Scene) -> None:
    await scene.world.host("new", epoch=0, state="reconciling")
    async with scene.watched():
        await scene.rounds(3)
    assert scene.hosts.polls["qemu+tcp://new/system"] == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", ["maintenance", "down", "reconciling", "non_operational"])
async def test_the_silence_of_a_host_out_of_service_means_nothing(scene: Scene, state: str) -> None:
    await scene.world.put("host", scene.host_id, state=state)
    scene.answer(SILENT)
    async with scene.watched():
        await scene.rounds(20)
    assert await scene.state() == state
    assert (scene.power.asked, await scene.incidents()) == (Counter(), [])

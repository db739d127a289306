"""The rows of a monitor: what it watches, what it saw, and the moves that it makes itself."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.doors import KNOCK
from domain.profiles import Profile
from domain.readings import DomainState, GuestStats, HostReading
from engine.queries.inventory import GetHost, HostSamples
from engine.records.watching import Seen, WatchedHost, WatchRecords
from store import incidents
from store.ids import new_id
from tests.store.engine_room import Engine, columns
from tests.store.world import START

pytestmark = pytest.mark.store


def records(engine: Engine) -> WatchRecords:
    return WatchRecords(engine.world.database, engine.world.clock)


async def watched(engine: Engine, host: UUID) -> WatchedHost:
    found = await records(engine).watched(Profile.BALANCED)
    return next(item for item in found if item.id == host)


async def test_hosts_are_watched_once_they_were_admitted_by_monitors_of_their_profile(
    engine: Engine,
) -> None:
    host = await engine.world.host("h1")
    await engine.world.device(host)
    await engine.world.host("new", epoch=0, state="reconciling")
    (found,) = await records(engine).watched(Profile.BALANCED)
    assert (found.name, [device.name for device in found.devices]) == ("h1", ["bmc1"])
    assert await records(engine).watched(Profile.FAST) == ()


async def test_a_round_is_kept_as_latest_view_and_as_sample(engine: Engine) -> None:
    host = await engine.world.host()
    watch = records(engine)
    await watch.register("m1")
    guest = GuestStats(vm_id=new_id(), name="db", state=DomainState.RUNNING, memory_kib=4)
    reading = HostReading(
        guests=(guest,),
        boot_mark=1,
        memory_total_mib=100,
        memory_free_mib=60,
        cpus=2,
        took_s=0.01,
    )
    seen = Seen(
        host_id=host,
        verdict="up",
        silent_s=0,
        misses=0,
        others_seen=0,
        reading=reading,
        detail=None,
        last_answer_at=engine.world.now,
        heard_sequence=1,
    )
    await watch.record("m1", 1, (seen,), warm=True, watched_ms=lambda: 7)
    view = await engine.backend.run_query(GetHost(host_id=host))
    assert view.last_answer_at == START
    (sample,) = await engine.backend.run_query(HostSamples(host_id=host))
    assert (sample.memory_free_mib, sample.guests[0]["name"]) == (60, "db")
    assert await watch.prune(START + timedelta(seconds=1)) == 1


async def test_a_miss_and_an_answer_move_the_host_and_are_told_once(engine: Engine) -> None:
    host = await engine.world.host()
    item = await watched(engine, host)
    await records(engine).missed(item, "no answer")
    assert (await engine.world.get("host", host))["state"] == "connecting"
    for _ in range(2):
        await records(engine).answered(item)
    assert (await engine.world.get("host", host))["state"] == "up"
    assert columns(await engine.rows("event"), "type") == ["host.missed", "host.answered"]


async def test_a_dead_host_that_answers_in_the_same_boot_voids_its_certificate(
    engine: Engine,
) -> None:
    host = await engine.world.host()
    await engine.world.certificate(host)
    item = await watched(engine, host)
    assert await records(engine).sign_of_life(item, 1)
    assert not await records(engine).sign_of_life(item, 1)
    assert columns(await engine.rows("death_certificate"), "state") == ["void"]
    assert columns(await engine.rows("event"), "type") == ["certificate.voided"]
    assert (await engine.world.get("host", host))["state"] != "down"


@pytest.mark.parametrize("mark", [None, 0])
async def test_a_dead_host_that_has_rebooted_leaves_its_certificate_true(
    engine: Engine, mark: int | None
) -> None:
    host = await engine.world.host()
    await engine.world.certificate(host)
    assert not await records(engine).sign_of_life(await watched(engine, host), mark)
    assert columns(await engine.rows("death_certificate"), "state") == ["valid"]
    assert (await engine.world.get("host", host))["state"] == "down"


async def silenced(engine: Engine, host: UUID, **knock: str) -> None:
    """A certificate of the host that rests on the silence of its door."""
    row = await engine.world.get("host", host)
    fact = {"kind": KNOCK, "device": row["name"], "verdict": "silent", "detail": row["uri"]}
    certificate = await engine.world.certificate(host)
    await engine.world.put("death_certificate", certificate, evidence=[fact | knock])


async def test_a_door_voids_the_certificate_that_rests_on_its_silence_once(engine: Engine) -> None:
    host = await engine.world.host()
    await silenced(engine, host)
    item = await watched(engine, host)
    assert await records(engine).door_opens(item, "it opens")
    assert not await records(engine).door_opens(item, "it opens")
    (proof,) = await engine.rows("death_certificate")
    assert (proof["state"], proof["void_reason"]) == ("void", "it opens")
    (alarm,) = await engine.rows("event")
    assert (alarm["type"], alarm["data"]["why"]) == ("certificate.voided", "it opens")
    found = await engine.world.get("host", host)
    assert (found["state"], "its door opens" in found["state_reason"]) == ("non_operational", True)


@pytest.mark.parametrize("state", ["reconciling", "non_operational", "up", "maintenance"])
async def test_a_door_voids_nothing_once_the_host_is_not_down_any_more(
    engine: Engine, state: str
) -> None:
    host = await engine.world.host()
    await silenced(engine, host)
    late = await watched(engine, host)
    await engine.world.put("host", host, state=state)
    before = await engine.everything()
    assert not await records(engine).door_opens(late, "it opens")
    assert await engine.everything() == before


@pytest.mark.parametrize("change", [{"epoch": 2}, {"uri": "qemu+tcp://spare/system"}])
async def test_a_door_of_another_epoch_or_address_voids_nothing(
    engine: Engine, change: dict[str, Any]
) -> None:
    host = await engine.world.host()
    await silenced(engine, host)
    late = await watched(engine, host)
    await engine.world.put("host", host, **change)
    before = await engine.everything()
    for item in (late, await watched(engine, host)):
        assert not await records(engine).door_opens(item, "it opens")
    assert await engine.everything() == before


@pytest.mark.parametrize("knock", [{"detail": ""}, {"kind": "power_reading"}])
async def test_a_door_voids_no_certificate_that_does_not_name_it(
    engine: Engine, knock: dict[str, str]
) -> None:
    host = await engine.world.host()
    await silenced(engine, host, **knock)
    before = await engine.everything()
    assert not await records(engine).door_opens(await watched(engine, host), "it opens")
    assert await engine.everything() == before


async def test_reports_of_an_open_incident_are_counted_and_of_a_closed_one_are_not(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host(state="non_responsive")
    incident = await world.incident(host)
    item = await watched(engine, host)
    await records(engine).reported_again(item)
    await world.do(incidents.close, incident, "returned", world.now)
    await records(engine).reported_again(item)
    assert columns(await engine.rows("incident"), "reports") == [2]


@pytest.mark.parametrize("now", ["fencing", "non_responsive", "connecting", "up"])
async def test_what_a_monitor_knew_of_an_earlier_epoch_moves_no_host(
    engine: Engine, now: str
) -> None:
    host = await engine.world.host(state="non_responsive")
    late = await watched(engine, host)
    await engine.world.put("host", host, state=now, epoch=2)
    before = await engine.everything()
    assert not await records(engine).sign_of_life(late, 1)
    await records(engine).answered(late)
    await records(engine).ignored(late, "silent")
    assert await engine.everything() == before


async def test_of_two_monitors_that_see_the_same_autostart_one_tells_it_and_the_host_shows_it(
    engine: Engine,
) -> None:
    host = await engine.world.host()
    before = await watched(engine, host)
    assert await records(engine).autostart(before, ("db", "web"), "m1")
    assert not await records(engine).autostart(before, ("db", "web"), "m2")
    (told,) = await engine.rows("event")
    assert (told["type"], told["data"]["monitor"]) == ("host.autostart", "m1")
    assert (await engine.backend.run_query(GetHost(host_id=host))).autostart == ("db", "web")
    after = await watched(engine, host)
    assert after.autostart == "db\nweb"
    assert await records(engine).autostart(after, (), "m2")
    assert not await records(engine).autostart(after, (), "m1")
    assert (await engine.backend.run_query(GetHost(host_id=host))).autostart == ()
    assert columns(await engine.rows("event"), "type") == ["host.autostart", "host.autostart_off"]

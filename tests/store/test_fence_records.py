"""The rows of a fence: claims, readings and certificates."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest

from activities.fencing import CertifyOrder, ConfirmedOrder, FenceStep, Fencing
from activities.power import ASKED_AGAIN_S
from domain.errors import Refused
from domain.inventory import CONFIRMATION, Confirmation, FenceDevice, PowerReading
from domain.orders import Evidence
from domain.readings import Knock
from store import incidents, inventory
from tests.store.engine_room import POLICY, Engine, columns
from tests.store.world import START

pytestmark = pytest.mark.store

OFF = Evidence(device="bmc1", verdict=PowerReading.OFF, took_s=0.2, at=START.isoformat())


async def dying(engine: Engine) -> tuple[UUID, UUID]:
    """A silent host with a fence device and a decision to fence it: host, incident."""
    world = engine.world
    await world.monitor()
    host = await world.host(state="non_responsive")
    await world.device(host)
    await world.observe(host, verdict="non_responsive", heard_sequence=1)
    world.later(5)
    return host, await world.incident(host)


async def decided(engine: Engine, host: UUID, **fields: Any) -> UUID:
    """The operation of a fence that is decided on now."""
    params = {"heard": await engine.world.heard(host), "eyes": ["m1"]} | fields
    return await engine.world.operation(host, kind="host.fence", params=params)


async def step(engine: Engine, host: UUID, incident: UUID, **fields: Any) -> FenceStep:
    return FenceStep(
        operation_id=await decided(engine, host, **fields),
        host=await engine.ref(host),
        incident_id=incident,
        policy=POLICY,
    )


async def certificate_order(engine: Engine, host: UUID, incident: UUID) -> CertifyOrder:
    fields: dict[str, Any] = (await step(engine, host, incident)).model_dump(exclude={"policy"})
    return CertifyOrder(**fields, evidence=(OFF,), proofs_required=1)


async def hear(engine: Engine, host: UUID) -> None:
    """A monitor hears the host after the decision and the reading."""
    await engine.world.observe(host, 2)


async def test_a_silent_host_is_claimed_as_often_as_its_fence_is_tried(engine: Engine) -> None:
    cut = await step(engine, *await dying(engine))
    await engine.fences.claim_fence(cut)
    await engine.fences.claim_fence(cut)
    assert len(await engine.rows("fence_claim")) == 1


async def test_a_claim_is_refused_with_a_code_once_the_host_was_heard(engine: Engine) -> None:
    host, incident = await dying(engine)
    cut = await step(engine, host, incident)
    await hear(engine, host)
    with pytest.raises(Refused, match="FENCE_NOT_ALLOWED") as refusal:
        await engine.fences.claim_fence(cut)
    assert (refusal.value.context["host"], refusal.value.retryable) == ("h1", False)
    assert await engine.rows("fence_claim") == []


async def test_a_host_heard_before_the_decision_but_not_since_may_be_claimed(
    engine: Engine,
) -> None:
    host, incident = await dying(engine)
    await engine.world.observe(host, 2)
    await engine.world.observe(host, 3, verdict="non_responsive", heard_sequence=2)
    await engine.fences.claim_fence(await step(engine, host, incident))
    assert (await engine.world.get("host", host))["state"] == "fencing"


async def test_nothing_is_cut_for_an_incident_that_nobody_has_judged(engine: Engine) -> None:
    host = await engine.world.host(state="non_responsive")
    cut = await step(engine, host, await engine.world.incident(host), heard=None)
    with pytest.raises(Refused, match="INCIDENT_NOT_JUDGED"):
        await engine.fences.claim_fence(cut)
    assert await engine.rows("fence_claim") == []


async def test_a_disarmed_cluster_refuses_the_claim(engine: Engine) -> None:
    cut = await step(engine, *await dying(engine))
    await engine.world.do(inventory.arm_cluster, engine.world.cluster_id, armed=False)
    with pytest.raises(Refused, match="FENCE_NOT_ALLOWED"):
        await engine.fences.claim_fence(cut)


async def test_every_reading_is_kept_and_the_device_shows_the_latest(engine: Engine) -> None:
    host, incident = await dying(engine)
    await engine.world.device(host, "bmc2")
    read = await step(engine, host, incident)
    unknown = OFF.model_copy(update={"device": "bmc2", "verdict": PowerReading.UNKNOWN})
    on = OFF.model_copy(update={"verdict": PowerReading.ON})
    await engine.fences.add_evidence(read, (on, unknown))
    await engine.fences.add_evidence(read, (OFF,))
    rows = await engine.world.do(incidents.evidence_of, incident)
    assert sorted(columns(rows, "device", "verdict")) == [
        ("bmc1", "off"),
        ("bmc1", "on"),
        ("bmc2", "unknown"),
    ]
    shown = columns(await engine.rows("fence_device"), "name", "last_reading", "last_read_at")
    assert sorted(shown) == [("bmc1", "off", START), ("bmc2", "unknown", START)]


async def test_the_devices_of_a_host_come_by_name_and_without_secrets(engine: Engine) -> None:
    host = await engine.world.host()
    for name in ("b", "a"):
        await engine.world.device(host, name)
    devices = await engine.fences.devices(host)
    assert [device.name for device in devices] == ["a", "b"]
    assert "sealed" not in str(devices)


async def test_certifying_again_gives_the_same_certificate(engine: Engine) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    first = await engine.fences.certify(order)
    assert await engine.fences.certify(order) == first
    assert first.evidence == (OFF,)
    assert columns(await engine.rows("death_certificate"), "id", "state") == [
        (first.certificate_id, "valid")
    ]
    assert (await engine.world.get("host", host))["state"] == "down"
    assert columns(await engine.rows("incident"), "phase") == ["place"]


async def test_certifying_many_times_at_once_issues_one_certificate(engine: Engine) -> None:
    order = await certificate_order(engine, *await dying(engine))
    given = await asyncio.gather(*(engine.fences.certify(order) for _ in range(6)))
    assert len({certificate.certificate_id for certificate in given}) == 1
    assert len(await engine.rows("death_certificate")) == 1


async def test_a_sign_of_life_after_the_reading_refuses_the_certificate(engine: Engine) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    await hear(engine, host)
    with pytest.raises(Refused, match="SIGN_OF_LIFE"):
        await engine.fences.certify(order)
    assert await engine.rows("death_certificate") == []
    assert (await engine.world.get("host", host))["state"] == "non_responsive"


async def test_the_death_of_a_host_is_not_certified_for_a_recovery_that_has_ended(
    engine: Engine,
) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    assert await engine.world.do(incidents.close, incident, "cancelled", engine.world.now)
    with pytest.raises(Refused, match="INCIDENT_CLOSED"):
        await engine.fences.certify(order)
    assert await engine.rows("death_certificate") == []


async def test_a_void_certificate_is_not_given_again(engine: Engine) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    await engine.fences.certify(order)
    await hear(engine, host)
    assert await engine.world.do(
        incidents.void_certificate, host, 1, "heard again", engine.world.now
    )
    with pytest.raises(Refused, match="SIGN_OF_LIFE"):
        await engine.fences.certify(order)


async def test_a_host_that_has_moved_on_gets_no_certificate_for_its_old_epoch(
    engine: Engine,
) -> None:
    host, incident = await dying(engine)
    order = await certificate_order(engine, host, incident)
    await engine.world.put("host", host, epoch=2)
    with pytest.raises(Refused):
        await engine.fences.certify(order)
    assert await engine.rows("death_certificate") == []


class Mute:
    """A controller that says nothing, and notes how long it was waited for."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    async def read(self, device: FenceDevice) -> PowerReading:
        """No answer."""
        self.waited_s.append(device.deadline_s)
        return PowerReading.UNKNOWN

    off = on = machine = AsyncMock()


def word_of(engine: Engine) -> Evidence:
    """What somebody says now."""
    return Evidence(
        kind=CONFIRMATION,
        device="ann",
        verdict=Confirmation.DEAD,
        took_s=0.0,
        at=engine.world.now.isoformat(),
    )


@pytest.mark.parametrize(
    ("said", "waited_s"),
    [
        ([], [10.0]),
        ([PowerReading.UNKNOWN], [10.0]),
        ([PowerReading.UNKNOWN, Confirmation.DEAD], [10.0]),
        ([PowerReading.UNKNOWN, PowerReading.UNKNOWN, Confirmation.DEAD], []),
        ([PowerReading.UNKNOWN, Confirmation.DEAD, PowerReading.UNKNOWN], []),
        ([Confirmation.DEAD, PowerReading.UNKNOWN, PowerReading.ON], [10.0]),
        ([PowerReading.ON, PowerReading.UNKNOWN, PowerReading.UNKNOWN, Confirmation.DEAD], [10.0]),
        ([Confirmation.DEAD], [10.0]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else None,
)
async def test_a_mute_controller_is_not_waited_for_once_a_person_has_said_dead(
    engine: Engine, said: list[PowerReading | Confirmation], waited_s: list[float]
) -> None:
    power, ask = Mute(), await step(engine, *await dying(engine))
    for verdict in said:
        word = verdict is Confirmation.DEAD
        engine.world.later(1)
        fact = Evidence(
            kind=CONFIRMATION if word else "power_reading",
            device="ann" if word else "bmc1",
            verdict=verdict,
            took_s=0.1,
            at=engine.world.now.isoformat(),
        )
        await engine.fences.add_evidence(ask, (fact,))
    door = AsyncMock()
    door.knock.return_value = Knock.SILENT
    fencing = Fencing(power, door, engine.fences)
    (told,) = await fencing.read_power(ask)
    assert (power.waited_s, told.verdict) == (waited_s, PowerReading.UNKNOWN)
    if not waited_s:  # Whoever acts on that word asks once more, and briefly.
        await fencing.check_word(ConfirmedOrder(step=ask, confirmation=word_of(engine)))
        assert power.waited_s == [ASKED_AGAIN_S]

"""Each certificate that is issued follows on the one before, on every database."""

from typing import Any
from uuid import UUID

import pytest

from activities.fencing import CertifyOrder
from domain.inventory import PowerReading
from domain.orders import Evidence
from engine.actions.hosts import FenceHost
from engine.queries.certificates import VerifyCertificates
from engine.views_explained import ChainView
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store

OFF = Evidence(device="bmc", verdict=PowerReading.OFF, took_s=0.1, at="2026-11-27T10:00:00+00:00")


async def verified(engine: Engine) -> ChainView:
    view: ChainView = await engine.backend.run_query(VerifyCertificates())
    return view


async def order(engine: Engine, name: str) -> CertifyOrder:
    """A host whose death is to be certified."""
    world = engine.world
    host = await world.host(name, state="fencing")
    incident = await world.incident(host)
    params = FenceHost(host_id=host, incident_id=incident, heard={}).model_dump(mode="json")
    operation = await world.operation(host, kind="host.fence", params=params)
    return CertifyOrder(
        operation_id=operation,
        host=await engine.ref(host),
        incident_id=incident,
        evidence=(OFF,),
        proofs_required=1,
    )


async def links(engine: Engine) -> list[Row]:
    return sorted(await engine.rows("death_certificate"), key=lambda row: row["number"])


async def test_certificates_are_numbered_and_follow_on_each_other(engine: Engine) -> None:
    for name in ("h1", "h2", "h3"):
        await engine.fences.certify(await order(engine, name))
    first, second, third = await links(engine)
    assert [first["number"], second["number"], third["number"]] == [1, 2, 3]
    assert [first["previous"], second["previous"], third["previous"]] == [
        None,
        first["digest"],
        second["digest"],
    ]
    view = await verified(engine)
    assert (view.certificates, view.whole, view.last_digest) == (3, True, third["digest"])


async def test_certifying_twice_adds_no_link(engine: Engine) -> None:
    wanted = await order(engine, "h1")
    assert await engine.fences.certify(wanted) == await engine.fences.certify(wanted)
    assert len(await links(engine)) == 1


async def test_certificates_issued_at_once_make_one_chain(engine: Engine) -> None:
    orders = [await order(engine, name) for name in ("h1", "h2", "h3", "h4")]
    await engine.world.together(*(_issue(engine, wanted) for wanted in orders))
    assert [row["number"] for row in await links(engine)] == [1, 2, 3, 4]
    assert (await verified(engine)).whole


def _issue(engine: Engine, wanted: CertifyOrder) -> Any:
    return lambda connection: engine.fences._certify(connection, wanted)


@pytest.mark.parametrize("column", ["epoch", "evidence", "previous"])
async def test_what_is_changed_behind_the_engines_back_is_found(
    engine: Engine, column: str
) -> None:
    for name in ("h1", "h2"):
        await engine.fences.certify(await order(engine, name))
    victim: UUID = (await links(engine))[0]["id"]
    changed: Any = {"epoch": 7, "evidence": [{"device": "bmc"}], "previous": "f" * 64}[column]
    await engine.world.put("death_certificate", victim, **{column: changed})
    view = await verified(engine)
    assert not view.whole
    assert str(victim) in (view.broken or "")

"""Death certificates are a chain: whatever is changed afterwards breaks it."""

from typing import Any
from uuid import UUID

import pytest

from domain.certificates import Link, digest_of, first_break
from domain.inventory import CONFIRMATION, Confirmation, PowerReading, Silence
from domain.orders import Evidence
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit


def link(name: str, number: int | None, previous: str | None, **changes: Any) -> Link:
    host, evidence = id_of(f"host of {name}"), ({"device": "bmc", "verdict": "off"},)
    digest = digest_of(host, 1, evidence, previous)
    fields = {"host_id": host, "epoch": 1, "evidence": evidence, "number": number}
    return Link(id=id_of(name), previous=previous, digest=digest, **(fields | changes))


def chain() -> list[Link]:
    """One from before there was a chain, and three links."""
    links = [link("old", None, None)]
    for number in (1, 2, 3):
        links.append(link(f"c{number}", number, links[-1].digest))
    return links


def test_what_nobody_touched_is_whole() -> None:
    assert first_break(chain()) is None
    assert first_break([]) is None
    assert first_break(chain()[1:2]) is not None  # the old one is gone


@pytest.mark.parametrize(
    "change",
    [{"epoch": 2}, {"evidence": ({"device": "bmc", "verdict": "on"},)}, {"host_id": id_of("x")}],
)
def test_a_certificate_that_was_changed_is_not_what_its_digest_says(change: Any) -> None:
    links = chain()
    links[2] = links[2].model_copy(update=change)
    assert first_break(links) == f"certificate {id_of('c2')} is not what its digest says"


def test_one_that_was_changed_with_its_digest_breaks_the_next() -> None:
    links = chain()
    forged = link("c2", 2, links[1].digest, epoch=9)
    digest = digest_of(forged.host_id, 9, forged.evidence, forged.previous)
    links[2] = forged.model_copy(update={"digest": digest})
    assert first_break(links) == f"certificate {id_of('c3')} does not follow on the one before it"


def test_one_that_was_taken_out_is_missed() -> None:
    links = chain()
    del links[2]
    assert first_break(links) == f"certificate {id_of('c3')} has number 3, 2 is missing"


def test_what_evidence_was_digested_to_before_there_were_grades_it_still_is() -> None:
    at = "2026-11-27T10:00:00+00:00"
    facts = (
        Evidence(device="bmc", verdict=PowerReading.OFF, took_s=0.2, at=at),
        Evidence(device="pdu", verdict=PowerReading.OFF, took_s=0.3, at=at, level=2),
        Evidence(
            kind=CONFIRMATION,
            device="ann",
            verdict=Confirmation.DEAD,
            took_s=0.0,
            at=at,
            detail="cords pulled",
        ),
        Evidence(kind="libvirt_knock", device="h1", verdict=Silence.SILENT, took_s=0.5, at=at),
    )
    kept = [fact.model_dump(mode="json") for fact in facts]
    assert digest_of(UUID(int=7), 3, kept, "ab") == (
        "35ca39c877c3aeef3970ab562e406718d19b2d7511a19b74506a0e03b8f12466"
    )


def test_the_first_link_names_no_other_where_there_was_none() -> None:
    assert first_break([link("c1", 1, None)]) is None

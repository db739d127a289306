"""An incident reads as a report."""

import json

import httpx2
import pytest

from domain.grades import Grade
from engine.views import EvidenceView
from tests.unit.cli.fake_engine import (
    Desk,
    Json,
    certificate,
    host,
    incident,
    paged,
    plain,
    uid,
)

pytestmark = pytest.mark.unit

REPORT = """\
Incident {id}
  host         h1 (epoch 3)
  state        recovered
  why          its power reads off
  decision     accept: 1 of 1 power devices read off
  date         2026-11-22
  last answer  07:00:00.000Z
  reported     07:00:02.100Z by vm-monitor
  reports      2
  closed       07:00:03.450Z
  VMs back     1 of 2
  slowest VM   3.40 s
  operation    {operation}

Evidence
KIND           DEVICE  SAID  AT             ANSWERED IN
power_reading  h1-bmc  off   07:00:02.400Z  0.21 s

Death certificate
  state            valid
  issued           07:00:02.450Z
  grade            power read back off
  rests on         h1-bmc read off
  starts under it  1
  number           7
  digest           c0ffee
  follows          decaf

Phases
PHASE   BEGAN          TOOK     WHAT
detect  07:00:00.000Z  2.100 s  from the last answer to the report
decide  07:00:02.100Z  0.100 s  judge: is it dead, may its power be cut
prove   07:00:02.200Z  0.300 s  read the power as off
place   07:00:02.500Z  0.100 s  choose hosts, reserve memory
start   07:00:02.600Z  0.800 s  until the last VM runs
ready   07:00:03.400Z  0.050 s  close the incident
together 3.450 s

VMs
VM       PROTECTED  BEFORE  AFTER  RUNS AGAIN     RECOVERY
db01     yes        h1      h2     07:00:03.400Z  3.400 s
scratch  no         h1      -      -              -
"""


def of_host(request: httpx2.Request) -> Json:
    asked = request.url.params.get("host_id")
    return paged(*([incident()] if asked in (None, str(uid("h1"))) else []))


@pytest.fixture
def struck(desk: Desk) -> Desk:
    desk.has(host(), host("h2"))
    desk.engine.on("GET", "/incidents", of_host)
    desk.engine.on("GET", f"/incidents/{uid('incident')}", plain(incident()))
    return desk


def test_an_incident_is_told_from_the_last_answer_to_the_last_vm(struck: Desk) -> None:
    result = struck.run("incident", "show", str(uid("incident")))
    expected = REPORT.format(id=uid("incident"), operation=uid("operation"))
    assert result.stdout == expected


def test_a_host_stands_for_its_newest_incident(struck: Desk) -> None:
    by_name = struck.run("incident", "show", "h1")
    assert by_name.stdout.startswith(f"Incident {uid('incident')}\n")
    quiet = struck.run("incident", "show", "h2")
    assert quiet.exit_code == 3
    assert "INCIDENT_NOT_FOUND" in quiet.stderr


def test_json_of_an_incident_is_what_the_api_answered(struck: Desk) -> None:
    shown = struck.run("incident", "show", "h1", "-o", "json")
    assert json.loads(shown.stdout) == plain(incident())
    listed = struck.run("incident", "list", "-o", "json")
    assert json.loads(listed.stdout)["items"] == [plain(incident())]


def test_an_open_incident_without_proof_says_that_nothing_may_start(struck: Desk) -> None:
    held = incident(
        open=True,
        phase="decide",
        outcome=None,
        closed_at=None,
        certificate=None,
        evidence=(),
        vms=(),
        phase_began={"detect": "2026-11-22T07:00:00Z", "decide": "2026-11-22T07:00:02Z"},
        phases_s={"detect": 2.0},
        decision={"move": "hold", "why": "the cluster is disarmed", "held": []},
    )
    struck.engine.on("GET", f"/incidents/{uid('incident')}", plain(held))
    text = struck.run("incident", "show", "h1").stdout
    for words in (
        "open: decide",
        "hold: the cluster is disarmed",
        "Death certificate: none; nothing may start elsewhere",
        "under way",
        "Evidence: none",
    ):
        assert words in text


def test_a_lease_that_certifies_is_told_with_its_numbers(struck: Desk) -> None:
    lease = {"kind": "storage_lease", "device": "san1", "verdict": "proof", "took_s": 300.0}
    lease |= {"detail": "unchanged for 300 s", "at": "2026-11-22T07:00:02.400Z"}
    grade = Grade.LEASE_EXPIRED
    changes = {"evidence": [lease], "grade": grade, "grade_told": grade.told}
    proven = certificate().model_copy(update=changes)
    shown = incident(certificate=proven, evidence=(EvidenceView(**lease, grade=grade),))
    struck.engine.on("GET", f"/incidents/{uid('incident')}", plain(shown))
    text = struck.run("incident", "show", "h1").stdout
    for words in (
        "storage_lease  san1    proof: unchanged for 300 s",
        "grade            storage lease expired, with an attested watchdog",
        "rests on         san1: unchanged for 300 s",
    ):
        assert words in text


def test_the_list_of_incidents_shows_outcome_and_length(struck: Desk) -> None:
    text = struck.run("incident", "list").stdout
    assert "recovered" in text
    assert "1.35 s" in text


def chain(**values: object) -> Json:
    return {"certificates": 3, "whole": True, "broken": None, "last_digest": "c0ffee"} | values


def test_a_whole_chain_of_certificates_names_its_last_digest(desk: Desk) -> None:
    desk.engine.on("GET", "/incidents/certificates/chain", chain())
    said = desk.run("incident", "verify")
    assert said.stdout == "3 certificates, the chain is whole; the last digest is c0ffee\n"


def test_a_broken_chain_fails_and_says_where(desk: Desk) -> None:
    why = "certificate 7 does not follow on the one before it"
    desk.engine.on("GET", "/incidents/certificates/chain", chain(whole=False, broken=why))
    failed = desk.run("incident", "verify")
    assert failed.exit_code == 1
    assert "CHAIN_BROKEN" in failed.stderr
    assert why in failed.stderr


def test_no_certificate_is_a_whole_chain_too(desk: Desk) -> None:
    empty = chain(certificates=0, last_digest=None)
    desk.engine.on("GET", "/incidents/certificates/chain", empty)
    assert desk.run("incident", "verify").stdout == "0 certificates, the chain is whole\n"

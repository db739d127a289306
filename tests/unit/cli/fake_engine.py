"""An engine that answers what a test tells it to, in the shapes of the real one's views."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import httpx2
from typer.testing import CliRunner, Result

from cli.main import app
from cli.session import Session
from domain.grades import Grade
from engine.views import (
    AffinityGroupView,
    CertificateView,
    EvidenceView,
    HostView,
    IncidentView,
    IncidentVmView,
    NetworkView,
    OperationView,
    StepView,
    VmDetailView,
    VmView,
)
from engine.views_cluster import ClusterView
from engine.views_hosts import FenceDeviceView

Json = dict[str, Any]
Answer = Any
BASE = "/api/v1"
T0 = datetime(2026, 11, 22, 7, 0, 0, tzinfo=UTC)


def uid(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def plain(view: Any) -> Json:
    value: Json = view.model_dump(mode="json")
    return value


class FakeEngine:
    """Answers by method and path; a list is answered one by one, its last for ever."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.requests: list[httpx2.Request] = []

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.answers[method, BASE + path] = list(answers)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        waiting = self.answers.get((request.method, request.url.path))
        if waiting is None:
            return problem(404, "PATH_NOT_FOUND", f"{request.method} {request.url.path}")
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, httpx2.Response):
            return answer
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(request)
        return httpx2.Response(200 if request.method == "GET" else 202, json=answer)

    def posted(self) -> list[httpx2.Request]:
        return [request for request in self.requests if request.method != "GET"]

    def body(self) -> Json:
        """The body of the only action that was asked for."""
        [request] = self.posted()
        value: Json = json.loads(request.content)
        return value


class Desk:
    """Runs commands against a fake engine."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine()
        self.env = {"HOLDFAST_VAR": str(folder), "HOLDFAST_TOKEN": "t0ken"}
        self.pauses: list[float] = []
        self.now = 0.0

    def pause(self, seconds: float) -> None:
        """Time passes only while somebody pauses."""
        self.pauses.append(seconds)
        self.now += seconds

    def run(self, *words: str, given: str | None = None) -> Result:
        session = Session(
            env=self.env,
            transport=httpx2.MockTransport(self.engine),
            pause=self.pause,
            monotonic=lambda: self.now,
        )
        return CliRunner().invoke(app, list(words), obj=session, input=given)

    def has(self, *objects: Any) -> None:
        """Put objects on the engine's lists, found by name and by id."""
        nouns = {ClusterView: "clusters", HostView: "hosts", VmView: "vms"}
        nouns |= {NetworkView: "networks", FenceDeviceView: "fence-devices"}
        nouns |= {AffinityGroupView: "affinity-groups"}
        for view, path in nouns.items():
            mine = [plain(item) for item in objects if isinstance(item, view)]
            if mine:
                self.engine.on("GET", f"/{path}", _named(mine))
                for item in mine:
                    self.engine.on("GET", f"/{path}/{item['id']}", item)


def paged(*items: Any) -> Json:
    """A list of one page."""
    return {"items": [plain(item) for item in items], "next_cursor": None, "total": None}


def _named(items: Iterable[Json]) -> Callable[[httpx2.Request], Json]:
    def answer(request: httpx2.Request) -> Json:
        """One item a page, so that whoever stops at the first page is found out."""
        given = request.url.params
        fits = {key: given.get(key) for key in ("name", "host_id") if key in given}
        found = [item for item in items if fits.items() <= item.items()]
        at = int(given.get("cursor", "0"))
        more = at + 1 < len(found)
        return {"items": found[at : at + 1], "next_cursor": str(at + 1) if more else None}

    return answer


def problem(status: int, code: str, detail: str, **members: Any) -> httpx2.Response:
    document = {"title": "No", "status": status, "code": code, "detail": detail, "context": {}}
    return httpx2.Response(
        status,
        json=document | members,
        headers={"Content-Type": "application/problem+json"},
    )


def cluster(name: str = "lab", **changes: Any) -> ClusterView:
    facts: Json = {
        "id": uid(name),
        "name": name,
        "profile": "balanced",
        "virt_type": "qemu",
        "armed": True,
        "predicted_power_cut_s": 4.5,
        "predicted_isolation_s": 20.5,
        "fence_limit_s": 300.0,
        "version": 1,
    }
    return ClusterView(**facts | changes)


def host(name: str = "h1", **changes: Any) -> HostView:
    facts: Json = {
        "id": uid(name),
        "cluster_id": uid("lab"),
        "name": name,
        "uri": f"qemu+tcp://{name}/system",
        "state": "up",
        "state_reason": "reconciled",
        "state_since": at(0),
        "epoch": 3,
        "memory_mib": 4096,
        "memory_reserved_mib": 512,
        "memory_allowed_mib": 4096,
        "cpus": 4,
        "vms": 2,
        "last_answer_at": at(1),
        "open_incident_id": None,
        "fencing": {
            "budget_s": 124.5,
            "limit_s": 300.0,
            "levels": ({"level": 1, "devices": 1, "budget_s": 124.5},),
            "blocks_on_power_loss": True,
        },
        "version": 1,
    }
    return HostView(**facts | changes)


def network(name: str = "lan", **changes: Any) -> NetworkView:
    facts: Json = {"id": uid(name), "cluster_id": uid("lab"), "name": name}
    return NetworkView(**facts | {"bridge": "br0", "vms": 3, "version": 1} | changes)


def vm(name: str = "db01", **changes: Any) -> VmDetailView:
    facts: Json = {
        "id": uid(name),
        "cluster_id": uid("lab"),
        "name": name,
        "state": "down",
        "host_id": None,
        "host_name": None,
        "memory_mib": 512,
        "vcpus": 1,
        "protected": True,
        "priority": 90,
        "depends_on": (),
        "generation": 0,
        "run_state": None,
        "running_since": None,
        "operation_id": None,
        "version": 1,
    }
    return VmDetailView(**facts | changes)


def group(name: str = "near", **changes: Any) -> AffinityGroupView:
    facts: Json = {"id": uid(name), "cluster_id": uid("lab"), "name": name, "together": True}
    facts |= {"hard": True, "vm_ids": (uid("db01"),), "host_ids": (), "version": 7}
    return AffinityGroupView(**facts | changes)


def fence_device(name: str = "h1-bmc", **changes: Any) -> FenceDeviceView:
    facts: Json = {
        "id": uid(name),
        "host_id": uid("h1"),
        "host_name": "h1",
        "name": name,
        "agent": "fence_ipmilan",
        "options": {"ip": "10.0.0.1", "lanplus": "1"},
        "deadline_s": 10.0,
        "level": 1,
        "delay_s": 0.0,
        "retries": 0,
        "shares_power": True,
        "host_budget_s": 124.5,
        "last_tested_at": at(0),
        "test_reading": "on",
        "test_took_s": 0.3,
        "test_identity": "same",
        "silent_since": None,
        "rehearsal": "proven",
        "rehearsed_at": "2026-07-01T12:00:00Z",
        "last_reading": "on",
        "last_read_at": at(0),
        "version": 1,
    }
    return FenceDeviceView(**facts | changes)


def step(name: str, state: str = "succeeded", **changes: Any) -> StepView:
    facts: Json = {
        "id": changes.get("id", name),
        "name": name,
        "state": state,
        "attempt": 1,
        "tries": 1,
        "detail": None,
        "problem": None,
        "started_at": at(1),
        "finished_at": None if state == "running" else at(1.5),
    }
    return StepView(**facts | changes)


def operation(state: str = "succeeded", **changes: Any) -> OperationView:
    done = state in ("succeeded", "failed", "cancelled", "needs_attention")
    facts: Json = {
        "id": uid("operation"),
        "kind": "vm.start",
        "state": state,
        "done": done,
        "reason_code": None,
        "waiting_for": None,
        "target_type": "vm",
        "target_id": uid("db01"),
        "target_name": "db01",
        "parent_id": None,
        "incident_id": None,
        "priority": 3,
        "principal": "admin",
        "reason": "",
        "correlation_id": "chg-4711",
        "workflow_id": f"op/{uid('operation')}/1",
        "problem": None,
        "summary": "running on h2" if state == "succeeded" else None,
        "created_at": at(0),
        "started_at": None if state == "pending" else at(0.5),
        "finished_at": at(2) if done else None,
    }
    return OperationView(**facts | changes)


PROOF: Json = {"kind": "power_reading", "device": "h1-bmc", "verdict": "off", "took_s": 0.21}


def certificate() -> CertificateView:
    return CertificateView(
        id=uid("certificate"),
        host_id=uid("h1"),
        epoch=3,
        state="valid",
        uses=1,
        evidence=[PROOF | {"at": "2026-11-22T07:00:02.400Z"}],
        grade=Grade.POWER_READ_OFF,
        grade_told=Grade.POWER_READ_OFF.told,
        digest="c0ffee",
        number=7,
        previous="decaf",
        issued_at=at(2.45),
        voided_at=None,
        void_reason=None,
    )


def victim(name: str, host_after: str | None, back_s: float | None) -> IncidentVmView:
    return IncidentVmView(
        vm_id=uid(name),
        name=name,
        protected=host_after is not None,
        host_before="h1",
        host_after=host_after,
        running_again_at=None if back_s is None else at(back_s),
        recovery_s=back_s,
    )


def incident(**changes: Any) -> IncidentView:
    began = {"detect": 0, "decide": 2.1, "prove": 2.2, "place": 2.5, "start": 2.6, "ready": 3.4}
    spent = {"detect": 2.1, "decide": 0.1, "prove": 0.3, "place": 0.1, "start": 0.8, "ready": 0.05}
    facts: Json = {
        "id": uid("incident"),
        "host_id": uid("h1"),
        "host_name": "h1",
        "epoch": 3,
        "open": False,
        "phase": "done",
        "outcome": "recovered",
        "why": "its power reads off",
        "reported_by": "vm-monitor",
        "reports": 2,
        "operation_id": uid("operation"),
        "decision": {"move": "accept", "why": "1 of 1 power devices read off", "held": []},
        "phase_began": {phase: at(began[phase]) for phase in began},
        "phases_s": spent,
        "last_answer_at": at(0),
        "opened_at": at(2.1),
        "closed_at": at(3.45),
        "evidence": (EvidenceView(detail="", at=at(2.4), grade=Grade.POWER_READ_OFF, **PROOF),),
        "certificate": certificate(),
        "vms": (victim("db01", "h2", 3.4), victim("scratch", None, None)),
    }
    return IncidentView(**facts | changes)

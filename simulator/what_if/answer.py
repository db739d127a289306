"""What a what-if tells: which VMs come back where and when, which wait and why, what is fenced."""

from typing import Any
from uuid import UUID

from domain.base import Frozen
from simulator.loop import EPOCH
from simulator.stage import Stage
from simulator.what_if.inventory import Cluster

Row = dict[str, Any]


class VmAnswer(Frozen):
    """One VM that a loss hit. Either it is `back`, or `why` it is not."""

    name: str
    was_on: str
    protected: bool
    on: str | None = None
    back_s: float | None = None  # from the first loss
    budget_s: int | None = None
    why: str = ""

    @property
    def back(self) -> bool:
        """Whether it runs again."""
        return self.on is not None

    @property
    def late(self) -> bool:
        """Whether it came back after its budget."""
        return self.budget_s is not None and self.back_s is not None and self.back_s > self.budget_s


class HostAnswer(Frozen):
    """One host that a loss hit, and what the engine made of it."""

    name: str
    state: str
    why: str
    proven_s: float | None = None  # when it was certified dead
    fenced: bool = False  # our off turned it off while it ran
    blocks: bool = False  # its fence devices lose their supply with it


class Answer(Frozen):
    """What happened in one cluster."""

    cluster: str
    hosts: tuple[HostAnswer, ...]
    vms: tuple[VmAnswer, ...]
    waits: tuple[str, ...]  # recoveries that wait, with the reason
    broken: tuple[str, ...]  # invariants and defects: there should be none

    @property
    def all_back(self) -> bool:
        """Whether every protected VM that was hit runs again."""
        return all(vm.back for vm in self.vms if vm.protected)


def answer_of(stage: Stage, cluster: Cluster, began_s: float, broken: list[str]) -> Answer:
    """Read the stage once all is calm."""
    lost = {
        str(facts["host"]): None
        for at_s, kind, facts in stage.events
        if kind == "host.power_lost" and at_s >= began_s
    }
    return Answer(
        cluster=cluster.name,
        hosts=tuple(_host(stage, cluster, name, began_s) for name in lost),
        vms=tuple(_vms(stage, cluster, lost, began_s)),
        waits=tuple(
            f"{op['kind']} {op['target_name']} waits: {op['waiting_for']} ({op['reason_code']})"
            for op in stage.rows.table("operation", "state = 'waiting'")
        ),
        broken=tuple(broken),
    )


def _host(stage: Stage, cluster: Cluster, name: str, began_s: float) -> HostAnswer:
    host = stage.rows.find("host", name)
    proven = [
        (row["issued_at"] - EPOCH).total_seconds() - began_s
        for row in stage.rows.table("death_certificate")
        if row["host_id"] == host["id"]
    ]
    fenced = any(
        kind == "host.power_lost" and facts["host"] == name and facts["by"] != "supply"
        for _, kind, facts in stage.events
    )
    return HostAnswer(
        name=name,
        state=host["state"],
        why=host["state_reason"],
        proven_s=round(proven[0], 2) if proven else None,
        fenced=fenced,
        blocks=any(host.blocks_on_power_loss for host in cluster.hosts if host.name == name),
    )


def _vms(stage: Stage, cluster: Cluster, lost: dict[str, None], began_s: float) -> list[VmAnswer]:
    ids = {row["name"]: row["id"] for row in stage.rows.table("vm")}
    found = []
    for vm in cluster.vms:
        if vm.host not in lost or vm.name not in ids:
            continue
        copies = stage.centre.copies(ids[vm.name])
        told = {
            "name": vm.name,
            "was_on": vm.host,
            "protected": vm.protected,
            "budget_s": vm.budget_s,
        }
        if copies:
            told |= {"on": copies[0], "back_s": _back_s(stage, vm.name, began_s)}
        else:
            told |= {"why": _why(stage, ids[vm.name], protected=vm.protected)}
        found.append(VmAnswer.model_validate(told))
    return sorted(found, key=lambda vm: (vm.back_s is None, vm.back_s or 0.0, vm.name))


def _back_s(stage: Stage, name: str, began_s: float) -> float:
    """When its process began that runs now."""
    starts = [
        at_s
        for at_s, kind, facts in stage.events
        if kind == "guest.started" and facts["vm"] == name
    ]
    return round(starts[-1] - began_s, 2)


def _why(stage: Stage, vm_id: UUID, *, protected: bool) -> str:
    if not protected:
        return "it is not protected: start it by hand"
    starts = [
        op for op in stage.rows.table("operation", "kind = 'vm.start'") if op["target_id"] == vm_id
    ]
    last = max(starts, key=lambda op: (op["created_at"], op["id"].int), default=None)
    if last is not None and last["waiting_for"]:
        return f"{last['waiting_for']} ({last['reason_code']})"
    if last is not None and last["problem"]:
        return f"{last['problem']['detail']} ({last['problem']['code']})"
    for op in stage.rows.table("operation", "kind = 'host.recover' AND state = 'waiting'"):
        return f"{op['waiting_for']} ({op['reason_code']})"
    return "its host is not proven dead"

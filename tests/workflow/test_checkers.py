"""The invariants can be broken: each check is shown a world that breaks it, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain.readings import DomainState
from domain.soft_step import TRIES_MAX
from store.rows import Row
from tests import invariants
from tests.fakes import DataCentre, FakeDomain
from tests.invariants import CHECKS, TABLES, Facts, broken

pytestmark = pytest.mark.workflow

HOST, OTHER, VM, RUN, START, INCIDENT, CLUSTER = (UUID(int=n) for n in range(1, 8))
WANTED: Row = {"wanted": True, "protected": True, "removed_at": None, "cluster_id": CLUSTER}
WANTED |= {"on_io_error": "resume", "on_hang": "restart"}
Break = Callable[[DataCentre, dict[str, list[Row]]], None]


def sound() -> tuple[DataCentre, dict[str, list[Row]]]:
    """One VM that runs on one host, started by an operation that has ended."""
    centre = DataCentre()
    host = centre.add("h1")
    centre.run(host, VM, FakeDomain("db", 128, 1))
    rows: dict[str, list[Row]] = {table: [] for table in TABLES}
    rows["cluster"] = [{"id": CLUSTER, "vcpu_overcommit": 1.5, "memory_overcommit": 1.0}]
    rows["cluster"][0] |= {"armed": True, "starts_per_host": 1}
    up = {"state": "up", "epoch": 1, "memory_mib": 1024, "cpus": 2, "cluster_id": CLUSTER}
    rows["host"] = [
        up | {"id": HOST, "name": "h1", "memory_reserved_mib": 128, "vcpus_reserved": 3},
    ]
    rows["vm"] = [{"id": VM, "name": "db"} | WANTED]
    run = {"id": RUN, "vm_id": VM, "host_id": HOST, "epoch": 1, "generation": 1, "active": 1}
    run |= {"agent_heard": True, "vcpus": 3, "operation_id": START, "turn_at": None}
    run |= {"target_host_id": None, "target_epoch": None, "target_generation": None}
    rows["vm_run"] = [run | {"state": "running", "memory_mib": 128, "lost_certificate_id": None}]
    start = {"id": START, "kind": "vm.start", "target_id": VM, "target_name": "db", "attempt": 1}
    start |= {"run_id": "run-1", "parent_id": None}
    rows["operation"] = [
        start | {"state": "succeeded", "workflow": "StartVm", "problem": None, "reason_code": None}
    ]
    rows["event"] = [{"operation_id": START, "type": "vm.start.succeeded"}]
    return centre, rows


def a_second_copy(centre: DataCentre, _rows: dict[str, list[Row]]) -> None:
    centre.run(centre.add("h2"), VM, FakeDomain("db", 128, 1))


def a_second_run(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["vm_run"].append(rows["vm_run"][0] | {"state": "stopping", "memory_mib": 0, "vcpus": 0})


def an_unknown_copy(centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    centre.hosts["h1"].domains[UUID(int=9)] = FakeDomain(
        "web", 128, 1, running=1, state=DomainState.RUNNING
    )


def a_run_without_its_copy(centre: DataCentre, _rows: dict[str, list[Row]]) -> None:
    centre.hosts["h1"].domains.clear()


def a_vm_that_was_forgotten(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["vm"].append({"id": OTHER, "name": "web"} | WANTED)


def a_loss_without_a_certificate(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["vm_run"].append(rows["vm_run"][0] | {"active": None, "state": "lost", "id": OTHER})


def a_lock_that_was_left(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["entity_lock"].append({"operation_id": START, "entity_id": VM})


def a_lock_that_was_freed_early(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    waiting = {"state": "waiting", "reason_code": "NO_ROOM", "waiting_for": "room"}
    rows["operation"].append(rows["operation"][0] | waiting | {"id": OTHER})


def an_operation_that_hangs(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    hangs = {"id": OTHER, "state": "running", "run_id": None}
    rows["operation"].append(rows["operation"][0] | hangs)


def an_end_told_twice(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["event"] *= 2


def a_step_without_an_end(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["step"].append({"operation_id": START, "state": "running", "name": "guest.start"})


def memory_that_was_not_given_back(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["host"][0]["memory_reserved_mib"] = 256


def more_memory_than_a_cluster_allows(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["host"][0]["memory_mib"] = 100
    rows["cluster"][0]["memory_overcommit"] = 1.27


def vcpus_that_were_not_given_back(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["host"][0]["vcpus_reserved"] = 2


def more_vcpus_than_a_cluster_allows(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["cluster"][0]["vcpu_overcommit"] = 1.49


def more_starts_at_once_than_may(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    parent = {"id": OTHER, "kind": "host.recover", "target_id": HOST, "workflow": "RecoverHost"}
    rows["operation"].append(rows["operation"][0] | parent)
    rows["operation"][0]["parent_id"] = OTHER
    rows["event"].append({"operation_id": OTHER, "type": "host.recover.succeeded"})
    begun = {"state": "starting", "turn_at": datetime(2026, 1, 2, tzinfo=UTC)}
    for number in (8, 9):
        rows["vm"].append({"id": UUID(int=number), "name": f"vm{number}"} | WANTED)
        mine = {"id": UUID(int=10 + number), "vm_id": UUID(int=number), "memory_mib": 0, "vcpus": 0}
        rows["vm_run"].append(rows["vm_run"][0] | begun | mine)


def an_incident_that_was_left(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    row = {"id": INCIDENT, "host_id": HOST, "epoch": 1, "open": 1, "operation_id": START}
    rows["incident"].append(row)


def a_copy_that_stays_paused(centre: DataCentre, _rows: dict[str, list[Row]]) -> None:
    centre.hosts["h1"].domains[VM].state = DomainState.PAUSED


def a_copy_that_stays_hung(centre: DataCentre, _rows: dict[str, list[Row]]) -> None:
    centre.hosts["h1"].domains[VM].hung = True


def a_vm_on_a_host_in_maintenance(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["host"][0]["state"] = "maintenance"


def a_vm_that_a_reboot_took_and_nobody_starts(
    centre: DataCentre, rows: dict[str, list[Row]]
) -> None:
    centre.hosts["h1"].domains.clear()
    rows["vm_run"][0] |= {"active": None, "state": "ended", "end_reason": "found gone"}
    rows["host"][0] |= {"memory_reserved_mib": 0, "vcpus_reserved": 0}


def a_planned_stop_that_nobody_remembers(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["vm"].append({"id": OTHER, "name": "web"} | WANTED)
    stop = {"id": UUID(int=7), "kind": "vm.stop", "target_id": OTHER, "target_name": "web"}
    rows["operation"].append(rows["operation"][0] | stop)
    rows["event"].append({"operation_id": stop["id"], "type": "vm.stop.succeeded"})


def a_libvirtd_restarted_again_and_again(_centre: DataCentre, rows: dict[str, list[Row]]) -> None:
    rows["soft_step"] += [{"id": UUID(int=n), "host_id": HOST} for n in range(TRIES_MAX + 1)]


PLANTED: tuple[tuple[Break, Any], ...] = (
    (a_second_copy, invariants.one_copy_at_most),
    (a_second_run, invariants.one_active_run_at_most),
    (an_unknown_copy, invariants.every_copy_has_its_run),
    (a_run_without_its_copy, invariants.every_running_run_has_its_copy),
    (a_vm_that_was_forgotten, invariants.every_wanted_vm_is_accounted_for),
    (a_loss_without_a_certificate, invariants.what_is_lost_is_certified),
    (a_lock_that_was_left, invariants.locks_end_with_their_operations),
    (a_lock_that_was_freed_early, invariants.who_works_holds_its_lock),
    (an_operation_that_hangs, invariants.operations_end_or_say_why_they_wait),
    (an_end_told_twice, invariants.operations_end_once),
    (a_step_without_an_end, invariants.steps_end_with_their_operations),
    (memory_that_was_not_given_back, invariants.capacity_holds),
    (more_memory_than_a_cluster_allows, invariants.capacity_holds),
    (vcpus_that_were_not_given_back, invariants.capacity_holds),
    (more_vcpus_than_a_cluster_allows, invariants.capacity_holds),
    (more_starts_at_once_than_may, invariants.starts_take_turns),
    (an_incident_that_was_left, invariants.one_incident_at_most),
    (a_copy_that_stays_paused, invariants.nothing_stays_paused),
    (a_copy_that_stays_hung, invariants.nothing_stays_hung),
    (a_vm_on_a_host_in_maintenance, invariants.nothing_runs_in_maintenance),
    (a_vm_that_a_reboot_took_and_nobody_starts, invariants.no_protected_vm_is_forgotten),
    (a_planned_stop_that_nobody_remembers, invariants.vms_come_back_from_a_planned_stop),
    (a_libvirtd_restarted_again_and_again, invariants.libvirtd_is_not_restarted_for_ever),
)


def test_a_sound_world_breaks_no_invariant() -> None:
    centre, rows = sound()
    assert broken(centre, Facts(rows)) == []


@pytest.mark.parametrize(("plant", "check"), PLANTED, ids=lambda item: item.__name__)
def test_each_check_sees_what_it_is_there_for_and_only_that(plant: Break, check: Any) -> None:
    centre, rows = sound()
    plant(centre, rows)
    found = {why.partition(":")[0] for why in broken(centre, Facts(rows))}
    assert found == {check.__name__}


def test_every_check_has_its_planted_breach() -> None:
    assert {check for _, check in PLANTED} == set(CHECKS)

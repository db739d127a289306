"""Live migration between real hosts: how long it takes, what is given up, who dies on the way."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import libvirt
import pytest

from lab.sampler import Sampler
from tests.lab.center import Center, Vm, domain_of, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]
SLOW_MIB_S = 1
"""So slow that a guest of 96 MiB is on its way for longer than any test."""

RUN = "https://holdfast.dev/xmlns/run/1"


def slowed(center: Center, host: str, vm: Vm) -> None:
    with domain_of(center, vm, host) as found:
        found.migrateSetMaxSpeed(SLOW_MIB_S)


def under_way(center: Center, host: str, vm: Vm, operation: dict[str, Any]) -> dict[str, Any]:
    """The operation once libvirt has told how far it is."""
    found: dict[str, Any] = {}

    def moving() -> bool:
        nonlocal found
        found = center.get(f"/operations/{operation['id']}")
        assert not found["done"], found
        return bool(found["progress_done"])

    until(moving, f"{vm.name} leaves {host}")
    return found


def marks(center: Center, host: str, vm: Vm) -> tuple[str, str]:
    """The generations in what runs and in what is defined."""
    with domain_of(center, vm, host) as found:
        where = (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        live, kept = (found.metadata(kind, RUN, each) for each in where)
    return live.split('"')[1], kept.split('"')[1]


def names_on(center: Center, host: str) -> list[str]:
    uri = next(each.uri for each in center.lab.inventory().hosts if each.name == host)
    connection = libvirt.open(uri)
    try:
        return [found.name() for found in connection.listAllDomains()]
    finally:
        connection.close()


def assert_one_process_each(center: Center, sampler: Sampler, *vms: Vm) -> None:
    """Each VM has one process, where the engine says; on the way it had two, of which one ran."""
    for vm in vms:
        assert sampler.result().hosts_of(vm.name) == (center.vm(vm)["host_name"],)


def test_a_vm_moves_there_and_back_and_its_mark_names_the_next_generation(
    center: Center, figure: Figure
) -> None:
    vm = center.running_vm("moved", "h1")
    before = center.vm(vm)["generation"]
    with center.lab.sampler() as sampler:
        there = center.act(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h2"]})
        view = center.vm(vm)
        assert (view["host_name"], view["state"]) == ("h2", "up")
        assert view["generation"] == before + 1
        assert marks(center, "h2", vm) == (str(before + 1), str(before + 1))
        assert vm.name not in names_on(center, "h1")
        assert center.host("h1")["vms"] == 0
        center.act(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h1"]})
        assert_one_process_each(center, sampler, vm)
    figure(f"a VM of 96 MiB moved in {lasted_s(there):.1f} s, both hosts read")


def test_a_cancelled_move_is_given_up_and_a_late_one_is_refused_by_the_target(
    center: Center,
) -> None:
    vm = center.running_vm("kept", "h1")
    slowed(center, "h1", vm)
    operation = center.post(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h2"]})
    seen = under_way(center, "h1", vm, operation)
    assert 0 < seen["progress_done"] < seen["progress_total"]
    center.post(f"/operations/{operation['id']}/actions/cancel")
    ended = center.ended(operation["id"])
    assert (ended["state"], ended["summary"]) == ("cancelled", f"{vm.name} runs on h1 as before")
    with domain_of(center, vm, "h1") as found:
        assert found.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        uri = next(each.uri for each in center.lab.inventory().hosts if each.name == "h2")
        with pytest.raises(libvirt.libvirtError, match="already defined"):
            found.migrateToURI3(uri, {}, flags | libvirt.VIR_MIGRATE_UNSAFE)
        found.migrateSetMaxSpeed(1000)
    center.act(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h2"]})
    assert center.vm(vm)["host_name"] == "h2"


def test_a_source_that_loses_power_on_the_way_gives_each_vm_one_new_start_in_its_incident(
    center: Center,
) -> None:
    vm, beside = center.running_vm("leaving", "h1"), center.running_vm("beside", "h1")
    slowed(center, "h1", vm)
    operation = center.post(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h2"]})
    under_way(center, "h1", vm, operation)
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.crash)
        ended = center.ended(operation["id"])
        assert ended["problem"]["code"] == "VM_LOST_IN_MIGRATION", ended
        until(lambda: center.vm(vm)["state"] == "up", f"{vm.name} runs again")
        assert center.vm(vm)["host_name"] in ("h2", "h3")
        assert_one_process_each(center, sampler, vm, beside)
    told = {each["name"]: each for each in center.get(f"/incidents/{incident['id']}")["vms"]}
    assert {name: each["host_after"] for name, each in told.items()} == {
        each.name: center.vm(each)["host_name"] for each in (vm, beside)
    }
    assert all(each["recovery_s"] > 0 for each in told.values())


def test_a_target_that_loses_power_on_the_way_leaves_the_vm_running_where_it_was(
    center: Center,
) -> None:
    vm = center.running_vm("arriving", "h1")
    slowed(center, "h1", vm)
    operation = center.post(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h2"]})
    under_way(center, "h1", vm, operation)
    with center.lab.sampler() as sampler:
        center.recover_from("h2", center.lab.crash)
        assert center.ended(operation["id"])["state"] == "failed"
        assert center.vm(vm)["host_name"] == "h1"
        assert_one_process_each(center, sampler, vm)


def test_a_drained_host_is_in_maintenance_without_a_vm_and_comes_back(
    center: Center, figure: Figure
) -> None:
    moved = [center.running_vm(f"drained{n}", "h1") for n in range(3)]
    with center.lab.sampler() as sampler:
        drain = center.act(f"/hosts/{center.hosts['h1']}/actions/maintain")
        host = center.host("h1")
        assert (host["state"], host["vms"]) == ("maintenance", 0)
        assert (drain["progress_done"], drain["progress_total"]) == (3, 3)
        assert not {vm.name for vm in moved} & set(names_on(center, "h1"))
        assert_one_process_each(center, sampler, *moved)
        assert {center.vm(vm)["host_name"] for vm in moved} <= {"h2", "h3"}
    took_s = lasted_s(drain)
    figure(f"three VMs left their host in {took_s:.1f} s, two at a time")
    center.activate("h1")
    assert center.host("h1")["state"] == "up"


def test_a_cancelled_drain_leaves_every_vm_where_it_runs_and_the_host_up(center: Center) -> None:
    vm = center.running_vm("stays", "h1")
    slowed(center, "h1", vm)
    drain = center.post(f"/hosts/{center.hosts['h1']}/actions/maintain")
    until(lambda: center.vm(vm)["state"] == "migrating", f"{vm.name} begins to leave")
    assert center.host("h1")["state"] == "preparing_maintenance"
    center.post(f"/operations/{drain['id']}/actions/cancel")
    assert center.ended(drain["id"])["state"] == "cancelled"
    until(lambda: center.vm(vm)["state"] == "up", f"{vm.name} is given up on")
    assert (center.vm(vm)["host_name"], center.host("h1")["state"]) == ("h1", "up")


def lasted_s(operation: dict[str, Any]) -> float:
    """From its beginning to its end."""
    begun, ended = (datetime.fromisoformat(operation[f"{w}_at"]) for w in ("started", "finished"))
    return (ended - begun).total_seconds()

"""Requests to a real engine: VMs start and stop on real hosts, and wrong ones are refused."""

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lab.lab import Lab
from tests.lab.center import Center, running_center, until

pytestmark = pytest.mark.lab

HUGE_MIB = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def center(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    with running_center(fresh_lab, engine_var, "balanced") as found:
        yield found


def test_a_vm_runs_on_a_real_host_ends_by_itself_and_starts_again_elsewhere(
    center: Center,
) -> None:
    with center.lab.sampler() as sampler:
        vm = center.running_vm("plain", "h1")
        assert sampler.result().hosts_of(vm.name) == ("h1",)
        path = f"/vms/{vm.id}/actions"

        assert center.refused(f"{path}/start") == (409, "VM_NOT_DOWN")

        # Until the guest's kernel listens to its power button, pressing it does nothing.
        _until_guest_writes(center, vm.name)
        stopped = center.act(f"{path}/stop")
        assert stopped["summary"] == "gone from h1, by itself"
        assert sampler.result().hosts_of(vm.name) == ()
        assert center.vm(vm)["state"] == "down"

        assert center.refused(f"{path}/stop") == (409, "VM_NOT_RUNNING")

        center.start(vm, "h2")
        center.assert_one_copy_each(sampler.result(), vm)
        assert center.vm(vm)["host_name"] == "h2"
        assert center.act(f"{path}/stop", {"force": True})["summary"].endswith("ended hard")


def _until_guest_writes(center: Center, vm: str) -> None:
    disk = Path(center.lab.inventory().shared) / f"{vm}.img"
    until(lambda: disk.read_bytes().startswith(b"heartbeat"), f"{vm} writes to its disk")


def test_a_vm_bigger_than_any_host_is_refused_and_nothing_is_written(center: Center) -> None:
    vm = center.add_vm("huge", memory_mib=HUGE_MIB)
    assert center.refused(f"/vms/{vm.id}/actions/start") == (422, "VM_TOO_BIG")
    assert center.vm(vm)["generation"] == 0
    assert center.get("/operations", kind="vm.start", target_id=vm.id)["items"] == []


def test_an_unknown_vm_is_not_found(center: Center) -> None:
    assert center.refused(f"/vms/{uuid4()}/actions/start") == (404, "VM_NOT_FOUND")


def test_a_fence_agent_that_does_not_exist_is_refused_and_not_kept(center: Center) -> None:
    body = {"host_id": center.hosts["h1"], "name": "no-such", "agent": "fence_nosuch"}
    assert center.refused("/fence-devices", body) == (422, "FENCE_AGENT_UNKNOWN")
    names = [device["name"] for device in center.get("/fence-devices")["items"]]
    assert "no-such" not in names


def test_a_body_that_is_not_json_is_refused(center: Center) -> None:
    answer = center.client.post(
        "/api/v1/vms", content=b'{"name": ', headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "JSON_INVALID")


def test_a_repeated_key_gives_the_first_answer_and_refuses_another_body(center: Center) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    body = center.vm_body("keyed")
    first = center.client.post("/api/v1/vms", json=body, headers=key)
    again = center.client.post("/api/v1/vms", json=body, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    other = center.client.post("/api/v1/vms", json=body | {"name": "other"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert center.get("/vms", name="other")["items"] == []


def test_without_the_token_nothing_is_said(center: Center) -> None:
    for path in ("/hosts", "/vms", "/incidents", "/events", "/operations"):
        answer = center.client.get(f"/api/v1{path}", headers={"Authorization": ""})
        assert answer.status_code == 401, path
        assert answer.json()["code"] == "TOKEN_MISSING"


def test_requests_for_one_vm_at_the_same_time_start_it_once(center: Center) -> None:
    vm = center.add_vm("raced")
    answers: list[int] = []

    def ask() -> None:
        answers.append(
            center.client.post(f"/api/v1/vms/{vm.id}/actions/start", json={}).status_code
        )

    with center.lab.sampler() as sampler:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [202] + [409] * 7
        starts = center.get("/operations", kind="vm.start", target_id=vm.id)["items"]
        assert center.ended(starts[0]["id"])["state"] == "succeeded"
        center.assert_one_copy_each(sampler.result(), vm)


def test_a_vm_whose_disk_is_nowhere_does_not_start_says_so_and_starts_once_it_is_there(
    center: Center,
) -> None:
    vm = center.add_vm("diskless")
    disk = Path(center.lab.inventory().shared) / f"{vm.name}.img"
    aside = disk.rename(disk.with_suffix(".aside"))
    failed = center.ended(center.post(f"/vms/{vm.id}/actions/start")["id"])
    assert failed["state"] == "failed", failed
    assert failed["problem"]["code"] == "DISK_MISSING"
    assert str(disk) in failed["problem"]["detail"]
    assert "edit the VM's disks" in failed["problem"]["next_step"]
    assert center.vm(vm)["state"] == "down"
    aside.rename(disk)
    center.start(vm)
    assert center.vm(vm)["state"] == "up"

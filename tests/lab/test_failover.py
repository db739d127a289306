"""Failures of hosts with the default profile: a power cut, a hung libvirtd, foreign domains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest

from lab import network
from lab.lab import Lab
from tests.lab.center import Center, Vm, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    with running_center(fresh_lab, engine_var, "balanced") as found:
        yield found


@pytest.fixture(scope="module")
def host_that_never_answers(running: Center) -> dict[str, Any]:
    """Added first and waited for last: the engine gives a new host half a minute."""
    address = network.host_address(running.lab.state().k, 200)
    uri = f"qemu+tcp://{address}/system"
    return running.post("/hosts", {"cluster_id": running.cluster_id, "name": "ghost", "uri": uri})


@pytest.fixture
def center(running: Center) -> Center:
    running.settle()
    return running


@contextmanager
def connected(center: Center, host: str) -> Iterator[libvirt.virConnect]:
    uri = next(each.uri for each in center.lab.inventory().hosts if each.name == host)
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def domains_on(center: Center, host: str) -> set[str]:
    with connected(center, host) as connection:
        return {domain.name() for domain in connection.listAllDomains()}


def recovered_after_s(incident: dict[str, Any], since: datetime) -> float:
    back = [vm["running_again_at"] for vm in incident["vms"] if vm["protected"]]
    return max((datetime.fromisoformat(at) - since).total_seconds() for at in back)


@pytest.mark.usefixtures("host_that_never_answers")
def test_after_a_power_cut_each_protected_vm_runs_elsewhere_once_and_the_host_comes_back(
    center: Center, figure: Figure
) -> None:
    first = center.running_vm("first", "h1", priority=90)
    second = center.running_vm("second", "h1", depends_on=[first.id])
    unprotected = center.running_vm("unprotected", "h1", protected=False)
    beside = center.running_vm("beside", "h2")
    epoch = center.host("h1")["epoch"]
    with center.lab.sampler() as sampler:
        cut_at = datetime.now(UTC)
        incident = center.recover_from("h1", center.lab.crash)
        figure(f"all protected VMs run again after {recovered_after_s(incident, cut_at):.2f} s")

        assert incident["outcome"] == "recovered"
        assert_certified(center, incident, epoch)
        assert center.vm(unprotected)["state"] == "down"
        assert center.vm(beside)["host_name"] == "h2"
        assert {center.vm(vm)["host_name"] for vm in (first, second)} <= {"h2", "h3"}
        center.assert_one_copy_each(sampler.result(), first, second, beside)
        assert sampler.result().hosts_of(unprotected.name) == ()
        assert_dependant_came_later(incident, first, second)

        center.activate("h1")
        host = center.host("h1")
        assert (host["state"], host["epoch"], host["vms"]) == ("up", epoch + 1, 0)
        left = domains_on(center, "h1") & {first.name, second.name, unprotected.name}
        assert left == set(), "the definitions of what moved away are gone"
        center.assert_one_copy_each(sampler.result(), first, second, beside)


def assert_certified(center: Center, incident: dict[str, Any], epoch: int) -> None:
    certificate = incident["certificate"]
    assert (certificate["host_id"], certificate["epoch"]) == (center.hosts["h1"], epoch)
    assert (certificate["state"], incident["epoch"]) == ("valid", epoch)
    said = {(fact["device"], fact["verdict"]) for fact in certificate["evidence"]}
    assert ("bmc-h1", "off") in said


def assert_dependant_came_later(incident: dict[str, Any], first: Vm, second: Vm) -> None:
    back = {
        vm["vm_id"]: datetime.fromisoformat(vm["running_again_at"])
        for vm in incident["vms"]
        if vm["running_again_at"]
    }
    assert back[first.id] <= back[second.id]


def test_a_hung_libvirtd_whose_power_reads_on_costs_no_fence_and_moves_nothing(
    center: Center,
) -> None:
    vm = center.running_vm("steady", "h1")
    known, epoch = len(center.incidents("h1")), center.host("h1")["epoch"]
    fences = fences_of(center, "h1")
    with center.lab.sampler() as sampler:
        before = [copy.pid for copy in sampler.result().running if copy.vm == vm.name]
        center.lab.hang("h1")
        until(lambda: center.host("h1")["state"] == "connecting", "h1 is connecting")
        heard_at = center.host("h1")["last_answer_at"]
        until(lambda: _silent_s(heard_at) > 5, "libvirtd hangs for 5 s")
        center.lab.unhang("h1")
        until(lambda: center.host("h1")["state"] == "up", "h1 is up again")

        after = [copy.pid for copy in sampler.result().running if copy.vm == vm.name]
        assert before == after
        assert sampler.result().doubled() == ()
    assert len(center.incidents("h1")) == known
    assert fences_of(center, "h1") == fences
    assert center.host("h1")["epoch"] == epoch
    assert center.vm(vm)["host_name"] == "h1"


def fences_of(center: Center, host: str) -> int:
    found = center.get("/operations", kind="host.fence", target_id=center.hosts[host])
    return len(found["items"])


def _silent_s(heard_at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(heard_at)).total_seconds()


FOREIGN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>96</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline></os>
  <devices><memballoon model='none'/></devices></domain>"""


@contextmanager
def foreign_domain(center: Center, host: str) -> Iterator[str]:
    """A domain that somebody else defined by hand; removed by hand as well."""
    name = f"foreign-{host}"
    boot = center.lab.inventory().guest.model_dump()
    with connected(center, host) as connection:
        connection.defineXML(FOREIGN.format(name=name, uuid=uuid4(), **boot))
    try:
        yield name
    finally:
        with connected(center, host) as connection:
            domain = connection.lookupByName(name)
            if domain.isActive():
                domain.destroy()
            domain.undefine()


def start_by_hand(center: Center, host: str, name: str) -> None:
    with connected(center, host) as connection:
        connection.lookupByName(name).create()


def test_domains_without_our_metadata_are_left_alone_by_failover_and_activation(
    center: Center,
) -> None:
    vm = center.running_vm("ours", "h1")
    with (
        foreign_domain(center, "h1") as there,
        foreign_domain(center, "h2") as here,
        center.lab.sampler() as sampler,
    ):
        start_by_hand(center, "h1", there)
        start_by_hand(center, "h2", here)
        until(lambda: sampler.result().hosts_of(here), "the foreign domain of h2 runs")
        running = {copy.pid for copy in sampler.result().running if copy.vm == here}

        center.recover_from("h1", center.lab.crash)
        center.lab.power_on("h1")
        center.lab.wait_ready("h1")
        start_by_hand(center, "h1", there)
        until(lambda: sampler.result().hosts_of(there), "the foreign domain of h1 runs")
        running |= {copy.pid for copy in sampler.result().running if copy.vm == there}
        summary = center.activate("h1")["summary"]

        assert f"left alone {there}" in summary
        now = {copy.pid for copy in sampler.result().running if copy.vm in (here, there)}
        assert now == running
        center.assert_one_copy_each(sampler.result(), vm)
        assert center.get("/vms", name=there)["items"] == []


def test_a_host_that_never_answers_ends_out_of_service_and_holds_nothing_up(
    center: Center, host_that_never_answers: dict[str, Any]
) -> None:
    operation = center.ended(host_that_never_answers["id"])
    assert operation["state"] == "failed"
    assert operation["problem"]["code"] == "HOST_NEVER_ANSWERED"
    assert operation["problem"]["next_step"]
    host = center.get("/hosts", name="ghost")["items"][0]
    assert (host["state"], host["epoch"], host["vms"]) == ("non_operational", 0, 0)
    assert "did not answer" in host["state_reason"]
    vm = center.add_vm("beside")
    center.start(vm)
    assert center.vm(vm)["host_name"] in center.hosts

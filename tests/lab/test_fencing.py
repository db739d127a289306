"""Hosts that live on while nobody hears them, and power controllers that fail or lie.

The cluster has the profile `fast`. Within a window the engine cuts the power of one host only, so
each test but the last takes h1 down; h3 gets a controller nobody can read in the last one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.bmc_control import BmcMode
from lab.sampler import Samples
from tests.lab.center import Center, Vm, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

HUNG_S = 20.0
"""Five times as long as the profile lets a host be silent."""


def moment(samples: Samples, what: str, vm: Vm, host: str) -> float:
    """When the sampler saw a VM come or go on a host."""
    return next(
        seen.t
        for seen in samples.timeline
        if seen.what == what and seen.guest.vm == vm.name and seen.guest.host == host
    )


def since(then: datetime, at: str) -> float:
    return (datetime.fromisoformat(at) - then).total_seconds()


def test_an_isolated_host_is_off_before_any_of_its_vms_runs_elsewhere(
    center: Center, figure: Figure
) -> None:
    vms = [center.running_vm("isolated", "h1") for _ in range(2)]
    with center.lab.sampler() as sampler:
        isolated_at = datetime.now(UTC)
        incident = center.recover_from("h1", center.lab.isolate)
        back = max(since(isolated_at, vm["running_again_at"]) for vm in incident["vms"])
        figure(f"all VMs run again after {back:.2f} s; phases {incident['phases_s']}")

        samples = sampler.result()
        center.assert_one_copy_each(samples, *vms)
        for vm in vms:
            elsewhere = center.vm(vm)["host_name"]
            gone = moment(samples, "vanished", vm, "h1")
            assert gone <= moment(samples, "appeared", vm, elsewhere)
    assert not next(h.power for h in center.lab.status().hosts if h.name == "h1")
    steps = [
        step["name"]
        for child in center.get(f"/operations/{incident['operation_id']}")["children"]
        if child["kind"] == "host.fence"
        for step in child["steps"]
    ]
    assert steps == ["fencing.power_off", "fencing.read_back", "fencing.certify"]


def test_a_lie_about_an_isolated_host_is_found_out_when_it_heals_and_its_copies_end(
    center: Center, figure: Figure
) -> None:
    """Outside the fault model: no channel but the liar was alive. So it is detected, reported and
    put right, not prevented."""
    vm = center.running_vm("doubled", "h1")
    center.lab.bmc("h1", BmcMode.LYING)
    voided = len(center.events("certificate.voided", "h1"))
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.isolate)
        assert incident["certificate"]["state"] == "valid"
        assert sampler.result().copies_max(vm.name) == 2, "the lie did what lies do"

        center.lab.heal("h1")
        until(
            lambda: len(center.events("certificate.voided", "h1")) > voided,
            "the certificate is voided",
        )
        certificate = center.get(f"/incidents/{incident['id']}")["certificate"]
        assert (certificate["state"], certificate["void_reason"] != "") == ("void", True)
        host = center.host("h1")
        assert host["state"] == "non_operational", "it gets no work before it is reconciled"
        assert "lies" in host["state_reason"]

        summary = center.activate("h1")["summary"]
        assert f"destroyed old copies of {vm.name}" in summary
        elsewhere = center.vm(vm)["host_name"]
        assert elsewhere in ("h2", "h3")
        assert sampler.result().hosts_of(vm.name) == (elsewhere,)
        figure(f"voided: {certificate['void_reason']}")


def test_a_host_whose_libvirtd_hangs_is_not_held_to_be_dead_however_its_controller_lies(
    center: Center, figure: Figure
) -> None:
    """Its kernel still takes connections; the guests run on. Nobody polls with success, and the
    only thing that contradicts the controller is the monitor's knock."""
    vm = center.running_vm("unheard", "h1")
    known, epoch = len(center.incidents("h1")), center.host("h1")["epoch"]
    center.lab.bmc("h1", BmcMode.LYING)
    with center.lab.sampler() as sampler:
        center.lab.hang("h1")
        try:
            until(lambda: unheard_s(center, "h1") > HUNG_S, "h1 is not heard for long")
            host = center.host("h1")
            assert (host["state"], len(center.incidents("h1"))) == ("connecting", known)
            assert sampler.result().hosts_of(vm.name) == ("h1",)
            figure(f"not heard for {unheard_s(center, 'h1'):.0f} s: {host['state']}, no fence")
        finally:
            center.lab.unhang("h1")

        until(lambda: center.host("h1")["state"] == "up", "h1 is up again")
        assert center.host("h1")["epoch"] == epoch
        assert len(center.incidents("h1")) == known
        center.assert_one_copy_each(sampler.result(), vm)
        assert center.vm(vm)["host_name"] == "h1"


def unheard_s(center: Center, host: str) -> float:
    """For how long a host has not answered, as the engine shows it."""
    heard = datetime.fromisoformat(center.host(host)["last_answer_at"])
    return (datetime.now(UTC) - heard).total_seconds()


def test_without_an_answer_from_the_power_controller_nothing_starts_until_it_reads_off(
    center: Center,
) -> None:
    vm = center.running_vm("waits", "h1")
    known = len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        center.lab.bmc("h1", BmcMode.DEAD)
        center.lab.crash("h1")
        incident = center.new_incident("h1", known)
        recovery = center.waiting(incident)
        assert recovery["reason_code"] in ("FENCE_AGENT_SILENT", "FENCE_AGENT_FAILED"), recovery
        assert "bmc-h1" in recovery["waiting_for"]
        assert_nothing_started(center, incident, vm, sampler.result())

        center.lab.bmc("h1", BmcMode.OK)
        assert center.closed(incident["id"])["outcome"] == "recovered"
        center.assert_one_copy_each(sampler.result(), vm)


def test_a_power_controller_that_hangs_is_given_up_and_tried_again_until_it_answers(
    center: Center,
) -> None:
    vm = center.running_vm("hangs", "h1")
    known = len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        center.lab.bmc("h1", BmcMode.HANGING)
        center.lab.crash("h1")
        incident = center.new_incident("h1", known)
        until(
            lambda: "FENCE_AGENT_SILENT" in step_problems(center, incident),
            "the agent was given up once",
        )
        assert_nothing_started(center, incident, vm, sampler.result())

        center.lab.bmc("h1", BmcMode.OK)
        assert center.closed(incident["id"])["outcome"] == "recovered"
        center.assert_one_copy_each(sampler.result(), vm)


def step_problems(center: Center, incident: dict[str, Any]) -> set[str]:
    """The codes with which tries of the fence's steps ended."""
    children = center.get(f"/operations/{incident['operation_id']}")["children"]
    steps = [step for child in children for step in child["steps"]]
    return {step["problem"]["code"] for step in steps if step["problem"]}


def assert_nothing_started(
    center: Center, incident: dict[str, Any], vm: Vm, samples: Samples
) -> None:
    recovery = center.get(f"/operations/{incident['operation_id']}")
    assert not any(child["kind"] == "vm.start" for child in recovery["children"])
    assert center.get(f"/incidents/{incident['id']}")["certificate"] is None
    assert samples.hosts_of(vm.name) == ()
    assert center.vm(vm)["state"] == "unknown"


def test_a_controller_with_a_wrong_password_proves_nothing(center: Center) -> None:
    # The engine takes no controller twice, so this one is written in another way.
    center.add_device("h3", "locked-h3", "not-the-password", privlvl="administrator")
    vm = center.running_vm("locked", "h3")
    known = len(center.incidents("h3"))
    with center.lab.sampler() as sampler:
        center.lab.crash("h3")
        incident = center.new_incident("h3", known)
        center.waiting(incident)
        found = center.get(f"/incidents/{incident['id']}")
        said = {(fact["device"], fact["verdict"]) for fact in found["evidence"]}
        assert {("bmc-h3", "off"), ("locked-h3", "unknown")} <= said
        assert found["certificate"] is None
        assert sampler.result().hosts_of(vm.name) == ()

        center.lab.power_on("h3")
        assert center.closed(incident["id"])["outcome"] == "returned"
        assert center.get(f"/incidents/{incident['id']}")["certificate"] is None

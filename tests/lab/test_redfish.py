"""Redfish for real: fence_redfish over TLS against a controller that switches a host of the lab.

h1 has a Redfish controller and no other; h2 has one at level 1 and its IPMI controller at level 2.
"""

import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import bmc_control, processes
from lab.bmc_control import BmcMode, Controller
from lab.lab import Lab
from tests.lab.center import Center, Json, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]
WITH_REDFISH = ("h1", "h2", "h3")


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    for host in WITH_REDFISH:
        fresh_lab.redfish(host)
    with running_center(fresh_lab, engine_var, "fast") as found:
        # Raised so that each test may cut a host without waiting for the last one's window.
        changed(found, f"/clusters/{found.cluster_id}", {"fences_max": 9})
        found.add_redfish("h1", "redfish-h1")
        found.add_redfish("h2", "redfish-h2")
        changed(found, f"/fence-devices/{devices(found, 'h2')['bmc-h2']['id']}", {"level": 2})
        found.remove_device(devices(found, "h1")["bmc-h1"])
        yield found


@pytest.fixture
def center(running: Center) -> Center:
    for host in WITH_REDFISH:
        running.lab.redfish(host, BmcMode.OK)
    running.settle()
    return running


def changed(center: Center, path: str, body: Json) -> None:
    answer = center.client.patch(f"/api/v1{path}", json=body)
    assert answer.status_code in (200, 202), answer.text
    assert center.ended(answer.json()["id"])["state"] == "succeeded"


def devices(center: Center, host: str) -> dict[str, Any]:
    found = center.get("/fence-devices", host_id=center.hosts[host])["items"]
    return {device["name"]: device for device in found}


def fence_checked(center: Center, host: str) -> Json:
    return center.ended(center.post(f"/hosts/{center.hosts[host]}/actions/test-fencing")["id"])


def is_powered(center: Center, host: str) -> bool:
    return next(each.power for each in center.lab.status().hosts if each.name == host)


def fence_steps(center: Center, incident: Json) -> list[str]:
    children = center.get(f"/operations/{incident['operation_id']}")["children"]
    fences = [child["steps"] for child in children if child["kind"] == "host.fence"]
    return [step["name"] for step in fences[-1]]


def test_a_controller_tells_its_status_and_the_machine_that_its_host_is(
    center: Center, figure: Figure
) -> None:
    operation = fence_checked(center, "h1")
    assert operation["state"] == "succeeded", operation
    figure(operation["summary"])
    device = devices(center, "h1")["redfish-h1"]
    assert (device["test_reading"], device["test_identity"]) == ("on", "same")


def test_an_isolated_host_is_cut_and_read_back_over_redfish_alone(
    center: Center, figure: Figure
) -> None:
    vm = center.running_vm("redfish", "h1")
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.isolate)
        center.assert_one_copy_each(sampler.result(), vm)
    assert not is_powered(center, "h1")
    (proof,) = incident["certificate"]["evidence"][:1]
    assert (proof["device"], proof["verdict"]) == ("redfish-h1", "off")
    figure(f"phases {incident['phases_s']}; read back in {proof['took_s']} s")
    assert fence_steps(center, incident) == [
        "fencing.power_off",
        "fencing.read_back",
        "fencing.certify",
    ]
    center.activate("h1")
    assert is_powered(center, "h1"), "it was switched on over Redfish as well"


def test_a_dead_controller_leaves_it_to_the_ipmi_level(center: Center, figure: Figure) -> None:
    vm = center.running_vm("levels", "h2")
    center.lab.redfish("h2", BmcMode.DEAD)
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h2", center.lab.isolate)
        center.assert_one_copy_each(sampler.result(), vm)
    figure(f"phases {incident['phases_s']}")
    said = {f["device"]: f["verdict"] for f in incident["certificate"]["evidence"]}
    assert said["bmc-h2"] == "off"
    assert said.get("redfish-h2") != "off"


@pytest.mark.parametrize("mode", [BmcMode.DEAD, BmcMode.HANGING])
def test_where_redfish_is_all_there_is_its_silence_is_waited_out(
    center: Center, mode: BmcMode
) -> None:
    vm = center.running_vm("waits", "h1")
    center.lab.redfish("h1", mode)
    known = len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        center.lab.isolate("h1")
        incident = center.new_incident("h1", known)
        waiting = center.waiting(incident)
        assert "redfish-h1" in str(waiting), waiting
        assert sampler.result().hosts_of(vm.name) == ("h1",)
        center.lab.redfish("h1", BmcMode.OK)
        center.closed(incident["id"])
        center.assert_one_copy_each(sampler.result(), vm)


def test_a_dead_controller_fails_its_test_before_it_is_needed(center: Center) -> None:
    center.lab.redfish("h2", BmcMode.DEAD)
    failed = fence_checked(center, "h2")
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "FENCE_TEST_FAILED")
    assert "redfish-h2 does not answer" in failed["problem"]["detail"]
    assert devices(center, "h2")["bmc-h2"]["test_identity"] == "same"


def test_a_controller_of_another_machine_is_found_by_its_uuid(center: Center) -> None:
    # The engine takes no controller twice, so this one is written in another way.
    center.add_redfish("h3", "swapped-h3", of="h2", redfish_uri="/redfish/v1")
    failed = fence_checked(center, "h3")
    assert failed["problem"]["code"] == "FENCE_TEST_FAILED"
    assert "swapped-h3 manages another machine than this host" in failed["problem"]["detail"]
    center.remove_device(devices(center, "h3")["swapped-h3"])


def test_a_lie_cuts_nothing_and_is_believed_only_by_who_asks_the_liar(center: Center) -> None:
    """As with IPMI: a test of the devices finds it, since the host answers."""
    center.lab.redfish("h3", BmcMode.LYING)
    center.add_redfish("h3", "lying-h3")
    agent(center, "h3", "off")
    failed = fence_checked(center, "h3")
    assert "lying-h3 reads off though the host answers" in failed["problem"]["detail"]
    assert is_powered(center, "h3")
    center.lab.redfish("h3", BmcMode.OK)
    assert fence_checked(center, "h3")["state"] == "succeeded"
    center.remove_device(devices(center, "h3")["lying-h3"])


def agent(center: Center, host: str, action: str) -> int:
    """The real agent, past the engine."""
    access = next(e.redfish for e in center.lab.inventory().hosts if e.name == host)
    told = access.options | {"password": access.password, "power_wait": "0", "action": action}
    lines = "".join(f"{name}={value}\n" for name, value in told.items())
    done = subprocess.run([access.agent], input=lines, text=True, capture_output=True, timeout=60)
    return done.returncode


def test_an_option_that_the_agent_does_not_know_is_refused(center: Center) -> None:
    body = center.redfish_body("h3", "typo-h3", sistems_uri="/redfish/v1/Systems/1")
    assert center.refused("/fence-devices", body) == (422, "FENCE_OPTION_UNKNOWN")
    body = center.redfish_body("h3", "typo-h3", password_script="/bin/true")
    assert center.refused("/fence-devices", body) == (422, "FENCE_OPTION_FORBIDDEN")


def test_nobody_without_the_password_learns_or_switches_anything(center: Center) -> None:
    access = next(e.redfish for e in center.lab.inventory().hosts if e.name == "h1")
    systems = f"https://127.0.0.1:{access.options['ipport']}/redfish/v1/Systems"
    plain = ssl.create_default_context()
    with pytest.raises(urllib.error.URLError, match="self-signed"):
        urllib.request.urlopen(systems, context=plain, timeout=10)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(systems, context=plain, timeout=10)
    shown = " ".join(" ".join(processes.arguments(pid)) for pid in processes.pids())
    assert access.password not in shown


def test_a_controller_that_was_killed_is_completed_by_up_and_ended_by_its_lab(
    center: Center,
) -> None:
    folder = center.lab.paths.host("h3")
    processes.end(bmc_control.process_of(folder, Controller.REDFISH))
    status = {host.name: host.redfish for host in center.lab.status().hosts}
    assert status == {"h1": "ok", "h2": "ok", "h3": "absent"}
    center.lab.up()
    until(lambda: center.lab.status().hosts[2].redfish == "ok", "it is there again")
    found = bmc_control.find_all(center.lab.paths.root)
    assert bmc_control.process_of(folder, Controller.REDFISH) in found

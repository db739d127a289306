"""Fence devices before they are needed, and level by level when they are; all of it for real.

IPMI is spoken by ipmitool to a real peer, and a host's own UUID comes from its real libvirtd.
"""

from collections.abc import Callable
from typing import Any

import pytest

from lab.bmc_control import BmcMode
from tests.lab.center import Center

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]
NOBODY_LISTENS = "9"


def checked(center: Center, host: str) -> dict[str, Any]:
    """The operation of a test of a host's fence devices, once it has ended."""
    return center.ended(center.post(f"/hosts/{center.hosts[host]}/actions/test-fencing")["id"])


def devices(center: Center, host: str) -> dict[str, Any]:
    found = center.get("/fence-devices", host_id=center.hosts[host])["items"]
    return {device["name"]: device for device in found}


def test_a_bmc_answers_for_the_machine_that_its_host_is(center: Center, figure: Figure) -> None:
    operation = checked(center, "h1")
    assert operation["state"] == "succeeded", operation
    device = devices(center, "h1")["bmc-h1"]
    figure(f"{operation['summary']}")
    assert (device["test_reading"], device["test_identity"]) == ("on", "same")
    assert 0 < device["test_took_s"] < 10


def test_a_dead_bmc_fails_its_test_before_it_is_needed(center: Center) -> None:
    center.lab.bmc("h2", BmcMode.DEAD)
    failed = checked(center, "h2")
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "FENCE_TEST_FAILED")
    assert devices(center, "h2")["bmc-h2"]["silent_since"] is not None
    center.lab.bmc("h2", BmcMode.OK)
    assert checked(center, "h2")["state"] == "succeeded"
    assert devices(center, "h2")["bmc-h2"]["silent_since"] is None


def test_a_bmc_of_another_machine_is_found_though_it_answers(center: Center) -> None:
    other = next(entry.bmc for entry in center.lab.inventory().hosts if entry.name == "h2")
    # The engine takes no controller twice, so this one is written in another way.
    swapped = other.options | {"privlvl": "administrator"}
    center.add_device("h3", "swapped-h3", other.password, **swapped)
    failed = checked(center, "h3")
    assert failed["problem"]["code"] == "FENCE_TEST_FAILED"
    assert "swapped-h3 manages another machine than this host" in failed["problem"]["detail"]
    assert devices(center, "h3")["bmc-h3"]["test_identity"] == "same"


def test_a_first_level_that_is_dead_leads_to_the_second_and_the_vm_runs_again(
    center: Center, figure: Figure
) -> None:
    bmc = next(entry.bmc for entry in center.lab.inventory().hosts if entry.name == "h1")
    center.add_device("h1", "dead-h1", bmc.password, ipport=NOBODY_LISTENS)
    device = devices(center, "h1")["bmc-h1"]
    answer = center.client.patch(f"/api/v1/fence-devices/{device['id']}", json={"level": 2})
    assert answer.status_code in (200, 202), answer.text
    vm = center.running_vm("levels", "h1")
    with center.lab.sampler() as sampler:
        incident = center.recover_from("h1", center.lab.isolate)
        center.assert_one_copy_each(sampler.result(), vm)
    children = center.get(f"/operations/{incident['operation_id']}")["children"]
    (steps,) = [c["steps"] for c in children if c["kind"] == "host.fence"]
    figure(f"phases {incident['phases_s']}")
    assert [step["name"] for step in steps] == [
        "fencing.power_off",
        "fencing.read_level",
        "fencing.power_off",
        "fencing.read_level",
        "fencing.certify",
    ]

"""A host of the lab is really switched off and on, through IPMI and then through Redfish."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lab.bmc_control import BmcMode
from lab.hosts import Host
from lab.lab import Lab
from lab.processes import ProcessId
from lab.state import host_named
from tests.lab.center import Center, Json, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    fresh_lab.redfish("h1")
    with running_center(fresh_lab, engine_var, "fast") as found:
        found.add_redfish("h1", "redfish-h1")
        device = devices(found, "h1")["redfish-h1"]
        answer = found.client.patch(f"/api/v1/fence-devices/{device['id']}", json={"level": 2})
        assert answer.status_code in (200, 202), answer.text
        yield found


@pytest.fixture
def center(running: Center) -> Iterator[Center]:
    running.lab.redfish("h1", BmcMode.OK)
    running.settle()
    yield running
    running.lab.bmc("h1", BmcMode.OK)
    running.lab.power_on("h1")
    if running.host("h1")["state"] == "maintenance":
        running.activate("h1")


def devices(center: Center, host: str) -> dict[str, Any]:
    found = center.get("/fence-devices", host_id=center.hosts[host])["items"]
    return {device["name"]: device for device in found}


def maintained(center: Center) -> None:
    center.act(f"/hosts/{center.hosts['h1']}/actions/maintain")


def begun(center: Center) -> str:
    began: str = center.post(f"/hosts/{center.hosts['h1']}/actions/rehearse-fencing")["id"]
    return began


def shown(center: Center) -> dict[str, str | None]:
    return {name: device["rehearsal"] for name, device in devices(center, "h1").items()}


def boot_of(center: Center) -> ProcessId | None:
    """Process 1 of h1; None while it is off."""
    state = center.lab.state()
    return Host(state, center.lab.paths, host_named(state, "h1")).init()


def took_s(operation: Json) -> list[str]:
    def at(step: Json, when: str) -> datetime:
        return datetime.fromisoformat(step[when])

    return [
        f"{s['name']} {(at(s, 'finished_at') - at(s, 'started_at')).total_seconds():.1f} s"
        for s in operation["steps"]
    ]


def test_both_levels_cut_this_very_host_and_it_is_on_again(center: Center, figure: Figure) -> None:
    maintained(center)
    before = boot_of(center)
    operation = center.ended(begun(center))
    assert operation["state"] == "succeeded", operation
    figure(f"{operation['summary']}; steps {took_s(operation)}")
    assert shown(center) == {"bmc-h1": "proven", "redfish-h1": "proven"}
    assert boot_of(center) not in (before, None)
    assert center.host("h1")["state"] == "maintenance"


def test_a_host_that_lives_on_while_its_device_reads_off_is_not_what_it_cuts(
    center: Center,
) -> None:
    """The controller lies, which looks from outside like one that is wired to another machine."""
    maintained(center)
    before = boot_of(center)
    center.lab.bmc("h1", BmcMode.LYING)
    failed = center.ended(begun(center))
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "FENCE_TEST_FAILED")
    assert "(bmc-h1) read off: this device cuts another machine" in failed["problem"]["detail"]
    assert "the levels after it were not tried" in failed["problem"]["detail"]
    assert shown(center)["bmc-h1"] == "other"
    assert boot_of(center) == before


def test_a_host_in_service_is_not_touched(center: Center) -> None:
    path = f"/hosts/{center.hosts['h1']}/actions/rehearse-fencing"
    assert center.refused(path) == (409, "HOST_STATE_FORBIDS")


def test_a_host_comes_back_though_its_controllers_die_in_the_middle(center: Center) -> None:
    """Off through IPMI, whose controller then dies: nothing can switch it on but the other one."""
    maintained(center)
    before = boot_of(center)
    operation = begun(center)
    until(lambda: boot_of(center) != before, "h1 is cut")
    center.lab.bmc("h1", BmcMode.DEAD)
    assert center.ended(operation)["state"] in ("failed", "succeeded")
    assert boot_of(center) not in (before, None)
    assert "cut" not in shown(center).values()

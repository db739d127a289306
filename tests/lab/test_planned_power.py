"""Planned shutdown and reboot of real hosts: power over IPMI, guests over libvirt."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.lab.center import Center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

LIMIT_S = 300.0
"""A guest that is booting is deaf, and gets its whole grace, one after the other."""


def test_vms_frozen_by_a_reboot_run_there_again_once_each(center: Center, figure: Figure) -> None:
    first = center.running_vm("frozen", "h1")
    second = center.running_vm("also-frozen", "h1", depends_on=[first.id], protected=False)
    known, epoch = len(center.incidents("h1")), center.host("h1")["epoch"]
    before = {vm.id: center.vm(vm)["generation"] for vm in (first, second)}
    with center.lab.sampler() as sampler:
        done = planned(center, "reboot", "freeze")
        for vm in (first, second):
            view = center.vm(vm)
            assert (view["host_name"], view["state"]) == ("h1", "up")
            assert view["generation"] == before[vm.id] + 1
        center.assert_one_copy_each(sampler.result(), first, second)
    host = center.host("h1")
    assert (host["state"], host["epoch"], host["power"]) == ("up", epoch + 1, None)
    assert len(center.incidents("h1")) == known
    figure(f"a host with two VMs was rebooted in {lasted_s(done):.1f} s, guests running again")


def test_vms_of_a_host_that_is_shut_down_run_on_another_one(center: Center, figure: Figure) -> None:
    first = center.running_vm("first", "h1")
    second = center.running_vm("second", "h1", protected=False)
    known = len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        done = planned(center, "shutdown", "failover")
        host = center.host("h1")
        assert (host["state"], host["power"], host["vms"]) == ("maintenance", "off", 0)
        for vm in (first, second):
            view = center.vm(vm)
            assert view["state"] == "up"
            assert view["host_name"] in ("h2", "h3")
        center.assert_one_copy_each(sampler.result(), first, second)
    assert len(center.incidents("h1")) == known
    center.activate("h1")
    until(lambda: center.host("h1")["state"] == "up", "h1 is in service again")
    figure(f"a host with two VMs was shut down in {lasted_s(done):.1f} s, guests elsewhere")


def planned(center: Center, verb: str, vms: str) -> dict[str, Any]:
    """Shut h1 down, or reboot it, by one of the policies; the operation, which has succeeded."""
    path = f"/hosts/{center.hosts['h1']}/actions/{verb}"
    operation = center.post(path, {"vms": vms})["id"]
    until(lambda: center.get(f"/operations/{operation}")["done"], f"its {verb} ends", LIMIT_S)
    ended: dict[str, Any] = center.get(f"/operations/{operation}")
    assert ended["state"] == "succeeded", ended
    return ended


def lasted_s(operation: dict[str, Any]) -> float:
    """How long an operation took."""
    began, ended = (datetime.fromisoformat(operation[at]) for at in ("started_at", "finished_at"))
    return (ended - began).total_seconds()

"""Real guests that end by themselves: killed, destroyed, undefined, switched off from inside."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.lab import Lab
from tests.lab.center import Center, Vm, domain_of, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    with running_center(fresh_lab, engine_var, "balanced") as found:
        yield found


@pytest.fixture
def center(running: Center) -> Center:
    running.settle()
    return running


def kill(center: Center, vm: Vm, host: str) -> None:
    """QEMU dies at once."""
    with center.lab.sampler() as sampler:
        copies = [c for c in sampler.result().running if (c.vm, c.host) == (vm.name, host)]
    assert len(copies) == 1
    os.kill(copies[0].pid, signal.SIGKILL)


def destroy(center: Center, vm: Vm, host: str) -> None:
    """`virsh destroy`."""
    with domain_of(center, vm, host) as domain:
        domain.destroy()


def undefine(center: Center, vm: Vm, host: str) -> None:
    """`virsh destroy` and `virsh undefine`."""
    with domain_of(center, vm, host) as domain:
        domain.destroy()
        domain.undefine()


def generation(center: Center, vm: Vm) -> int:
    found: int = center.get(f"/vms/{vm.id}")["generation"]
    return found


def again(center: Center, vm: Vm, before: int) -> dict[str, Any]:
    """The VM once it runs in the next generation."""

    def runs() -> bool:
        found = center.get(f"/vms/{vm.id}")
        return (found["generation"], found["state"]) == (before + 1, "up")

    until(runs, f"{vm.name} never ran again")
    return center.vm(vm)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (kill, "guest crashed"),
        (destroy, "guest destroyed by hand"),
        (undefine, "guest ended"),
    ],
    ids=["killed", "destroyed", "undefined"],
)
def test_a_protected_vm_whose_guest_ends_runs_again_on_its_host_once(
    center: Center, figure: Figure, how: Callable[[Center, Vm, str], None], why: str
) -> None:
    vm = center.running_vm("ends", "h1")
    before = generation(center, vm)
    with center.lab.sampler() as sampler:
        ended_at = datetime.now(UTC)
        how(center, vm, "h1")
        found = again(center, vm, before)
        since = datetime.fromisoformat(found["running_since"]) - ended_at
        figure(
            f"a VM whose guest was {how.__name__}ed runs again after {since.total_seconds():.2f} s"
        )
        center.assert_one_copy_each(sampler.result(), vm)
    assert found["host_name"] == "h1"
    told = [event for event in center.get("/audit", type="vm.ended")["items"]]
    assert {e["data"]["reason"] for e in told if e["subject_id"] == vm.id} == {why}


def test_an_unprotected_vm_whose_guest_ends_is_shown_down_with_the_reason(center: Center) -> None:
    vm = center.running_vm("alone", "h1", protected=False)
    kill(center, vm, "h1")
    until(lambda: center.vm(vm)["state"] == "down", f"{vm.name} is still shown as running")
    assert center.get(f"/vms/{vm.id}")["end_reason"] == "guest crashed"


def test_a_guest_that_switches_itself_off_stays_down(center: Center) -> None:
    vm = center.running_vm("inside", "h1")

    def down() -> bool:
        if center.vm(vm)["state"] == "down":
            return True
        # The engine may have settled it meanwhile, so that its host knows no such domain.
        with suppress(libvirt.libvirtError), domain_of(center, vm, "h1") as domain:
            domain.shutdown()  # a button that a guest that still boots does not feel
        return False

    until(down, f"{vm.name} is still shown as running")
    found = center.vm(vm)
    assert (found["end_reason"], found["host_name"]) == ("guest shut down", None)

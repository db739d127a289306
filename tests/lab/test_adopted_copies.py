"""Real guests that somebody migrates past the engine: adopted where they run, once, untouched."""

import threading
from collections.abc import Callable
from contextlib import suppress

import libvirt
import pytest

from tests.lab.center import Center, Vm, domain_of, until
from tests.lab.test_migration import assert_one_process_each, marks, names_on, slowed

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

LIVE = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE
"""As `virsh migrate --live --p2p --unsafe`: defined on the source still, and not on the target."""
FOR_GOOD = LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE


def migrate_by_hand(center: Center, vm: Vm, source: str, target: str, flags: int) -> None:
    """A person moves it; returns when it is there."""
    uri = next(each.uri for each in center.lab.inventory().hosts if each.name == target)
    with domain_of(center, vm, source) as found:
        found.migrateToURI3(uri, {}, flags)


def wait_for_a_person(center: Center, vm: Vm) -> str:
    """Why the recovery of the VM waits."""
    found: list[str] = []

    def waits() -> bool:
        items = center.get("/operations", kind="vm.recover", target_id=vm.id)["items"]
        found[:] = [item["waiting_for"] for item in items if item["state"] == "waiting"]
        return bool(found)

    until(waits, f"the recovery of {vm.name} waits")
    return found[0]


def adopt(center: Center, vm: Vm, host: str) -> None:
    center.act(f"/vms/{vm.id}/actions/adopt-copy", {"host_id": center.hosts[host]})


@pytest.mark.parametrize("flags", [LIVE, FOR_GOOD], ids=["for now", "for good"])
def test_a_vm_that_was_migrated_by_hand_is_adopted_and_is_like_any_other_then(
    center: Center, flags: int
) -> None:
    vm = center.running_vm("strayed", "h1")
    before = center.vm(vm)["generation"]
    with center.lab.sampler() as sampler:
        migrate_by_hand(center, vm, "h1", "h2", flags)
        assert "adopt-copy" in wait_for_a_person(center, vm)
        adopt(center, vm, "h2")
        view = center.vm(vm)
        assert (view["host_name"], view["state"], view["generation"]) == ("h2", "up", before + 1)
        assert marks(center, "h2", vm) == (str(before + 1), str(before + 1))
        assert vm.name not in names_on(center, "h1")
        assert (center.host("h1")["vms"], center.host("h2")["vms"]) == (0, 1)
        assert_one_process_each(center, sampler, vm)
        center.act(f"/vms/{vm.id}/actions/migrate", {"host_id": center.hosts["h1"]})
        assert_one_process_each(center, sampler, vm)
        center.act(f"/vms/{vm.id}/actions/stop", {"force": True})
        assert vm.name not in names_on(center, "h1") + names_on(center, "h2")
        center.start(vm, "h2")
        assert_one_process_each(center, sampler, vm)
    assert center.vm(vm)["generation"] == before + 3


def test_what_libvirt_still_moves_is_not_adopted_before_it_has_arrived(center: Center) -> None:
    vm = center.running_vm("moving", "h1")
    slowed(center, "h1", vm)

    def move() -> None:
        migrate_by_hand(center, vm, "h1", "h2", LIVE)

    mover = threading.Thread(target=move)
    with center.lab.sampler() as sampler:
        mover.start()
        try:
            until(lambda: vm.name in names_on(center, "h2"), f"{vm.name} is on its way")
            refused = center.post(
                f"/vms/{vm.id}/actions/adopt-copy", {"host_id": center.hosts["h2"]}
            )
            problem = center.ended(refused["id"])["problem"]
            assert problem["code"] == "COPY_MOVES", problem
            assert center.vm(vm)["host_name"] == "h1"
        finally:
            with suppress(libvirt.libvirtError), domain_of(center, vm, "h1") as found:
                found.migrateSetMaxSpeed(1000)
            mover.join(60)
        assert not mover.is_alive()
        adopt(center, vm, "h2")
        assert_one_process_each(center, sampler, vm)

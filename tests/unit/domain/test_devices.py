"""Disks and network cards of a VM, and what is left out of what is written."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.inventory import Disk, GuestSpec, Nic, NicModel, VirtType, mac_of

pytestmark = pytest.mark.unit

MAC = "52:54:00:00:00:01"


@pytest.mark.parametrize(
    "values",
    [
        {"bus": "usb"},
        {"device": "floppy"},
        {"device": "cdrom"},
        {"bus": "ide", "read_only": True},
        {"bus": "sata", "read_only": True},
    ],
    ids=str,
)
def test_a_disk_that_no_machine_could_have_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Disk.model_validate({"path": "/d", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"bus": "scsi", "read_only": True},
        {"bus": "ide", "device": "cdrom"},
        {"bus": "sata", "device": "cdrom", "read_only": True},
    ],
    ids=str,
)
def test_a_disk_that_machines_have_is_taken_and_comes_back(values: dict[str, Any]) -> None:
    disk = Disk.model_validate({"path": "/d", **values})
    assert Disk.model_validate_json(disk.model_dump_json()) == disk
    assert {**values, **disk.model_dump(mode="json")} == disk.model_dump(mode="json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac", "52:54:00:00:00"),
        ("mac", "52:54:00:00:00:0G"),
        ("mac", "53:54:00:00:00:01"),
        ("mac", "52:54:00:00:00:01\n"),
        ("mac", "52-54-00-00-00-01"),
        ("bridge", ""),
        ("bridge", "a-name-of-sixteen"),
        ("bridge", "br 0"),
        ("bridge", "../br0"),
        ("network", ""),
        ("model", "ne2k_pci"),
    ],
)
def test_a_card_that_no_host_could_connect_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Nic.model_validate({"network": "lan", "bridge": "br0", "mac": MAC, field: value})
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


@given(vm_id=st.uuids(), index=st.integers(0, 31))
def test_the_address_of_a_card_is_the_same_each_time_and_one_that_a_card_may_have(
    vm_id: UUID, index: int
) -> None:
    mac = mac_of(vm_id, index)
    assert mac == mac_of(UUID(str(vm_id)), index)
    assert mac.startswith("52:54:00:")
    assert Nic(network="lan", mac=mac).model is NicModel.VIRTIO


def test_cards_of_one_vm_and_of_many_vms_get_different_addresses() -> None:
    ids = [UUID(int=number) for number in range(8)]
    assert len({mac_of(vm_id, index) for vm_id in ids for index in range(8)}) == 64


def test_what_is_new_is_written_only_where_it_is_used() -> None:
    plain = GuestSpec(
        vm_id=uuid4(),
        name="db",
        memory_mib=128,
        vcpus=1,
        virt_type=VirtType.QEMU,
        disks=(Disk(path="/d"),),
    )
    written = plain.model_dump(mode="json")
    assert set(written) == {
        *("vm_id", "name", "memory_mib", "vcpus", "virt_type", "disks", "boot"),
    }
    assert written["disks"] == [{"path": "/d", "format": "raw", "shareable": False}]
    nics = (Nic(network="lan", mac=MAC),)
    used = plain.model_copy(update={"nics": nics, "machine": "q35"})
    assert GuestSpec.model_validate_json(used.model_dump_json()) == used
    assert used.model_dump(mode="json")["machine"] == "q35"


@pytest.mark.parametrize("machine", ["isapc", "q35 ", "pc-q35", "pc-i440fx-", "virt", "pc\n"])
def test_a_machine_of_another_kind_is_refused(machine: str) -> None:
    with pytest.raises(ValidationError):
        GuestSpec.model_validate(
            {
                "vm_id": uuid4(),
                "name": "db",
                "memory_mib": 128,
                "vcpus": 1,
                "virt_type": "kvm",
                "machine": machine,
            }
        )

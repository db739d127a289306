"""The XML of a guest: escaping, disks, boot, and the generation in its metadata."""

from uuid import uuid4
from xml.etree import ElementTree as ET

import pytest

from domain.inventory import Boot, Disk, GuestSpec, VirtType
from drivers.domain_xml import NAMESPACE, disk_name, domain_xml, generation_in

pytestmark = pytest.mark.unit

SPEC = GuestSpec(
    vm_id=uuid4(),
    name="a<&>'\"b",
    memory_mib=96,
    vcpus=2,
    virt_type=VirtType.QEMU,
    disks=(Disk(path="/data/a & b.img"), Disk(path="/data/c", format="qcow2", shareable=True)),
    boot=Boot(kernel="/k", initrd="/i", cmdline="console=ttyS0 x=<&>"),
)


def test_text_of_people_is_escaped_and_comes_back_unchanged() -> None:
    root = ET.fromstring(domain_xml(SPEC, 7))
    assert root.findtext("name") == SPEC.name
    assert root.findtext("os/cmdline") == "console=ttyS0 x=<&>"
    assert [source.get("file") for source in root.iterfind("devices/disk/source")] == [
        "/data/a & b.img",
        "/data/c",
    ]


def test_the_generation_travels_in_the_metadata() -> None:
    run = ET.fromstring(domain_xml(SPEC, 7)).find(f"metadata/{{{NAMESPACE}}}run")
    assert run is not None
    assert generation_in(ET.tostring(run, encoding="unicode")) == 7


@pytest.mark.parametrize(
    "element",
    [
        "<run/>",
        "<run generation=''/>",
        "<run generation='-1'/>",
        "<run",
        "",
        "<run generation='٣'/>",
    ],
)
def test_metadata_without_a_plain_number_is_no_generation(element: str) -> None:
    assert generation_in(element) is None


def test_only_a_shareable_disk_goes_without_qemus_lock_and_none_is_cached() -> None:
    disks = ET.fromstring(domain_xml(SPEC, 1)).findall("devices/disk")
    assert [disk.find("shareable") is not None for disk in disks] == [False, True]
    assert {disk.find("driver").get("cache") for disk in disks} == {"none"}  # type: ignore[union-attr]


def test_a_guest_has_acpi_to_be_shut_down_and_is_not_restarted_by_its_host() -> None:
    root = ET.fromstring(domain_xml(SPEC, 1))
    assert root.find("features/acpi") is not None
    assert root.findtext("on_crash") == "destroy"


def test_without_a_kernel_a_guest_boots_from_its_first_disk() -> None:
    root = ET.fromstring(domain_xml(SPEC.model_copy(update={"boot": None}), 1))
    assert root.find("os/boot").get("dev") == "hd"  # type: ignore[union-attr]
    assert root.find("os/kernel") is None


def test_disk_names_go_on_after_the_twenty_sixth() -> None:
    assert [disk_name(n) for n in (0, 25, 26, 701, 702)] == ["vda", "vdz", "vdaa", "vdzz", "vdaaa"]

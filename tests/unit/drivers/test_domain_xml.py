"""The XML of a guest: escaping, disks, boot, and the generation in its metadata."""

from uuid import uuid4
from xml.etree import ElementTree as ET

import pytest

from domain.inventory import (
    Boot,
    Disk,
    DiskBus,
    DiskDevice,
    GuestSpec,
    Nic,
    NicModel,
    VirtType,
)
from drivers.domain_xml import (
    NAMESPACE,
    adopted_run,
    bar_xml,
    claim_in,
    disk_name,
    domain_xml,
    generation_in,
    with_generation,
)

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


def devices_of(*disks: Disk, nics: tuple[Nic, ...] = ()) -> ET.Element:
    """The devices of a guest with these disks and cards."""
    spec = SPEC.model_copy(update={"disks": disks, "nics": nics, "boot": None})
    found = ET.fromstring(domain_xml(spec, 1)).find("devices")
    assert found is not None
    return found


BUSES = ["virtio", "sata", "scsi", "ide", "virtio"]


def test_each_bus_counts_its_own_disks_and_those_that_share_names_share_the_count() -> None:
    disks = [Disk.model_validate({"path": "/d", "bus": bus}) for bus in BUSES]
    targets = devices_of(*disks).findall("disk/target")
    assert [target.get("dev") for target in targets] == ["vda", "sda", "sdb", "hda", "vdb"]
    assert [target.get("bus") for target in targets] == BUSES


def test_a_cdrom_and_a_disk_that_is_only_read_say_so_and_a_device_is_no_file() -> None:
    cdrom = Disk(path="/cd.iso", device=DiskDevice.CDROM, bus=DiskBus.SATA)
    disks = devices_of(cdrom, Disk(path="/dev/sdb", read_only=True), Disk(path="/d")).findall(
        "disk"
    )
    assert [disk.get("device") for disk in disks] == ["cdrom", "disk", "disk"]
    assert [disk.find("readonly") is not None for disk in disks] == [True, True, False]
    assert [disk.get("type") for disk in disks] == ["file", "block", "file"]
    assert disks[1].find("source").attrib == {"dev": "/dev/sdb"}  # type: ignore[union-attr]


def test_a_guest_with_a_cdrom_boots_from_it_when_its_disk_gives_nothing() -> None:
    cdrom = Disk(path="/cd.iso", device=DiskDevice.CDROM, bus=DiskBus.IDE)
    spec = SPEC.model_copy(update={"disks": (cdrom,), "boot": None})
    order = ET.fromstring(domain_xml(spec, 1)).findall("os/boot")
    assert [boot.get("dev") for boot in order] == ["hd", "cdrom"]


def test_only_a_guest_with_a_scsi_disk_gets_a_controller_that_its_kernel_knows() -> None:
    for bus, expected in ((DiskBus.SCSI, ["virtio-scsi"]), (DiskBus.VIRTIO, [])):
        found = devices_of(Disk(path="/d", bus=bus)).findall("controller[@type='scsi']")
        assert [controller.get("model") for controller in found] == expected


def test_a_card_is_on_its_bridge_or_behind_qemu_itself() -> None:
    nics = (
        Nic(network="lan", bridge="br0", mac="52:54:00:00:00:01"),
        Nic(network="out", mac="52:54:00:00:00:02", model=NicModel.E1000E),
    )
    found = devices_of(nics=nics).findall("interface")
    assert [card.get("type") for card in found] == ["bridge", "user"]
    assert [card.find("mac").get("address") for card in found] == [n.mac for n in nics]  # type: ignore[union-attr]
    assert [card.find("model").get("type") for card in found] == ["virtio", "e1000e"]  # type: ignore[union-attr]
    assert [source.get("bridge") for source in found[0].findall("source")] == ["br0"]
    assert found[1].find("source") is None


def test_the_machine_is_the_one_that_was_asked_for() -> None:
    kind = ET.fromstring(domain_xml(SPEC.model_copy(update={"machine": "q35"}), 1)).find("os/type")
    assert kind is not None
    assert kind.get("machine") == "q35"


def test_a_mark_names_its_generation_and_its_import_and_only_an_id_is_an_import() -> None:
    claim = uuid4()
    mark = adopted_run(3, claim)
    assert (generation_in(mark), claim_in(mark)) == (3, claim)
    for other in ("<run generation='3'/>", "<run claim='ann'/>", "<run"):
        assert claim_in(other) is None


def _generation(xml: str) -> int | None:
    mark = ET.fromstring(xml).find(f"metadata/{{{NAMESPACE}}}run")
    assert mark is not None
    return generation_in(ET.tostring(mark, encoding="unicode"))


def test_another_generation_changes_nothing_but_the_mark() -> None:
    before = domain_xml(SPEC, 4)
    after = with_generation(before, 5)
    assert _generation(after) == 5
    assert with_generation(after, 4) == with_generation(before, 4)


def test_a_definition_without_our_mark_is_not_sent_on_as_ours() -> None:
    with pytest.raises(ValueError, match="no mark"):
        with_generation("<domain><name>theirs</name></domain>", 2)


def test_a_bar_has_the_vms_uuid_another_name_and_no_disk() -> None:
    root = ET.fromstring(bar_xml(SPEC.vm_id, 6))
    assert root.findtext("uuid") == str(SPEC.vm_id)
    assert root.findtext("name") != SPEC.name
    assert (root.find("devices"), _generation(bar_xml(SPEC.vm_id, 6))) == (None, 6)


def test_only_a_guest_whose_agent_is_asked_has_a_channel_for_it() -> None:
    path = "devices/channel[@type='unix']/target[@type='virtio']"
    assert ET.fromstring(domain_xml(SPEC, 1)).find(path) is None
    asked = ET.fromstring(domain_xml(SPEC.model_copy(update={"agent": True}), 1)).find(path)
    assert asked is not None
    assert asked.get("name") == "org.qemu.guest_agent.0"

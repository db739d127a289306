"""A VM as libvirt XML, and the generation of its run in the domain's metadata.

The metadata is what tells our domains from foreign ones, so whatever cannot be read as a
generation counts as foreign: such a domain is never changed. A guest that was running before the
engine knew it also carries the import that claimed it, so that this import alone can be repeated
or undone.
"""

import re
from collections import Counter
from uuid import UUID
from xml.etree import ElementTree as ET

from domain.inventory import Boot, Disk, DiskBus, DiskDevice, GuestSpec, Nic, VirtType

NAMESPACE = "https://holdfast.dev/xmlns/run/1"
PREFIX = "holdfast"

ET.register_namespace(PREFIX, NAMESPACE)


def domain_xml(spec: GuestSpec, generation: int) -> str:
    """The definition of one run of a VM: no graphics, a serial console on a pty."""
    root = ET.Element("domain", type=spec.virt_type.value)
    _text(root, "name", spec.name)
    _text(root, "uuid", str(spec.vm_id))
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, f"{{{NAMESPACE}}}run", generation=str(generation))
    _text(root, "memory", str(spec.memory_mib), unit="MiB")
    _text(root, "vcpu", str(spec.vcpus))
    if spec.virt_type is VirtType.KVM:
        ET.SubElement(root, "cpu", mode="host-model")
    _os(root, spec)
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    _devices(root, spec)
    return ET.tostring(root, encoding="unicode")


def with_generation(xml: str, generation: int) -> str:
    """A domain's definition as libvirt gives it, its mark naming another generation."""
    root = ET.fromstring(xml)
    mark = root.find(f"metadata/{{{NAMESPACE}}}run")
    if mark is None:
        raise ValueError("the definition carries no mark of ours")
    mark.set("generation", str(generation))
    return ET.tostring(root, encoding="unicode")


def bar_xml(vm_id: UUID, generation: int) -> str:
    """A definition that only keeps a VM's UUID taken on a host; it has no disk, and boots none."""
    root = ET.Element("domain", type=VirtType.QEMU.value)
    _text(root, "name", f"not-here-{vm_id}")
    _text(root, "uuid", str(vm_id))
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, f"{{{NAMESPACE}}}run", generation=str(generation))
    _text(root, "memory", "1", unit="MiB")
    _text(ET.SubElement(root, "os"), "type", "hvm")
    return ET.tostring(root, encoding="unicode")


def generation_in(element: str) -> int | None:
    """The generation in a metadata element as libvirt returns it; None when there is none."""
    try:
        value = ET.fromstring(element).get("generation", "")
    except ET.ParseError:
        return None
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def adopted_run(generation: int, claim: UUID) -> str:
    """The metadata element of a guest that an import claimed."""
    run = ET.Element("run", generation=str(generation), claim=str(claim))
    return ET.tostring(run, encoding="unicode")


def claim_in(element: str) -> UUID | None:
    """The import named by a metadata element; None when there is none."""
    try:
        return UUID(ET.fromstring(element).get("claim", ""))
    except (ET.ParseError, ValueError):
        return None


def _os(root: ET.Element, spec: GuestSpec) -> None:
    os = ET.SubElement(root, "os")
    if spec.virt_type is VirtType.TEST:
        _text(os, "type", "hvm")
    else:
        _text(os, "type", "hvm", arch="x86_64", machine=spec.machine)
    if spec.boot is None:
        ET.SubElement(os, "boot", dev="hd")
        if any(disk.device is DiskDevice.CDROM for disk in spec.disks):
            ET.SubElement(os, "boot", dev="cdrom")
    else:
        _kernel(os, spec.boot)


def _kernel(os: ET.Element, boot: Boot) -> None:
    _text(os, "kernel", boot.kernel)
    if boot.initrd is not None:
        _text(os, "initrd", boot.initrd)
    if boot.cmdline:
        _text(os, "cmdline", boot.cmdline)


def _devices(root: ET.Element, spec: GuestSpec) -> None:
    devices = ET.SubElement(root, "devices")
    numbers: Counter[str] = Counter()
    for disk in spec.disks:
        prefix = TARGET_PREFIX[disk.bus]
        _disk(devices, disk_name(numbers[prefix], prefix), disk)
        numbers[prefix] += 1
    if any(disk.bus is DiskBus.SCSI for disk in spec.disks):
        # The default controller is an lsilogic that newer kernels have no driver for.
        ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for nic in spec.nics:
        _nic(devices, nic)
    if spec.agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    ET.SubElement(devices, "controller", type="usb", index="0", model="none")
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")
    ET.SubElement(devices, "memballoon", model="none")


AGENT_CHANNEL = "org.qemu.guest_agent.0"
"""The port at which QEMU's guest agent listens (libvirt, domain format, Channel)."""

TARGET_PREFIX = {DiskBus.VIRTIO: "vd", DiskBus.SCSI: "sd", DiskBus.SATA: "sd", DiskBus.IDE: "hd"}


def _disk(devices: ET.Element, name: str, disk: Disk) -> None:
    block = disk.path.startswith("/dev/")  # QEMU refuses a device that is said to be a file.
    kind = "block" if block else "file"
    element = ET.SubElement(devices, "disk", type=kind, device=disk.device.value)
    # Without the host's cache, what a guest has written survives the host and is seen elsewhere.
    ET.SubElement(element, "driver", name="qemu", type=disk.format, cache="none")
    ET.SubElement(element, "source", {"dev" if block else "file": disk.path})
    ET.SubElement(element, "target", dev=name, bus=disk.bus.value)
    if disk.shareable:
        ET.SubElement(element, "shareable")
    if disk.read_only or disk.device is DiskDevice.CDROM:
        ET.SubElement(element, "readonly")


def _nic(devices: ET.Element, nic: Nic) -> None:
    kind = "user" if nic.bridge is None else "bridge"
    element = ET.SubElement(devices, "interface", type=kind)
    ET.SubElement(element, "mac", address=nic.mac)
    if nic.bridge is not None:
        ET.SubElement(element, "source", bridge=nic.bridge)
    ET.SubElement(element, "model", type=nic.model.value)


def disk_name(number: int, prefix: str = "vd") -> str:
    """The target name of the disk with this number: vda … vdz, vdaa …"""
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"{prefix}{letters}"


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text

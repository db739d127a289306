"""A VM as libvirt XML, and the generation of its run in the domain's metadata.

The metadata is what tells our domains from foreign ones, so whatever cannot be read as a
generation counts as foreign: such a domain is never changed.
"""

import re
from xml.etree import ElementTree as ET

from domain.inventory import Boot, Disk, GuestSpec, VirtType

NAMESPACE = "https://holdfast.dev/xmlns/run/1"
PREFIX = "holdfast"

ET.register_namespace(PREFIX, NAMESPACE)


def domain_xml(spec: GuestSpec, generation: int) -> str:
    """The definition of one run of a VM: no graphics, no network, a serial console on a pty."""
    root = ET.Element("domain", type=spec.virt_type.value)
    _text(root, "name", spec.name)
    _text(root, "uuid", str(spec.vm_id))
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, f"{{{NAMESPACE}}}run", generation=str(generation))
    _text(root, "memory", str(spec.memory_mib), unit="MiB")
    _text(root, "vcpu", str(spec.vcpus))
    if spec.virt_type is VirtType.KVM:
        ET.SubElement(root, "cpu", mode="host-model")
    _os(root, spec.virt_type, spec.boot)
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    _devices(root, spec)
    return ET.tostring(root, encoding="unicode")


def generation_in(element: str) -> int | None:
    """The generation in a metadata element as libvirt returns it; None when there is none."""
    try:
        value = ET.fromstring(element).get("generation", "")
    except ET.ParseError:
        return None
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def _os(root: ET.Element, virt_type: VirtType, boot: Boot | None) -> None:
    os = ET.SubElement(root, "os")
    if virt_type is VirtType.TEST:
        _text(os, "type", "hvm")
    else:
        # The i440fx board has the fewest devices to bring up, which counts under emulation.
        _text(os, "type", "hvm", arch="x86_64", machine="pc")
    if boot is None:
        ET.SubElement(os, "boot", dev="hd")
        return
    _text(os, "kernel", boot.kernel)
    if boot.initrd is not None:
        _text(os, "initrd", boot.initrd)
    if boot.cmdline:
        _text(os, "cmdline", boot.cmdline)


def _devices(root: ET.Element, spec: GuestSpec) -> None:
    devices = ET.SubElement(root, "devices")
    for number, disk in enumerate(spec.disks):
        _disk(devices, number, disk)
    ET.SubElement(devices, "controller", type="usb", index="0", model="none")
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")
    ET.SubElement(devices, "memballoon", model="none")


def _disk(devices: ET.Element, number: int, disk: Disk) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    # Without the host's cache, what a guest has written survives the host and is seen elsewhere.
    ET.SubElement(element, "driver", name="qemu", type=disk.format, cache="none")
    ET.SubElement(element, "source", file=disk.path)
    ET.SubElement(element, "target", dev=disk_name(number), bus="virtio")
    if disk.shareable:
        ET.SubElement(element, "shareable")


def disk_name(number: int) -> str:
    """The target name of the disk with this number: vda … vdz, vdaa …"""
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"vd{letters}"


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text

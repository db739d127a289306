"""Somebody else's domain XML in our words: what a VM of ours can say, and what it cannot.

What is not known to be harmless counts as unsupported, so a feature of a later libvirt is never
dropped in silence.

Invariants  Reading never fails for what a guest has: it ends up in `unsupported` or `lost`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID
from xml.etree import ElementTree as ET

from pydantic import ValidationError

from domain.errors import Invalid
from domain.foreign import ForeignNic
from domain.inventory import DEFAULT_MACHINE, Boot, Disk, GuestSpec, Nic, NicModel, VirtType
from drivers.hardened_xml import parse


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KNOWN = _words(
    "name uuid metadata memory currentMemory vcpu os features clock on_poweroff on_reboot on_crash "
    "on_lockfailure devices pm seclabel resource cpu"
)
LOST = _words(
    "title description iothreads iothreadids defaultiothread cputune numatune memtune blkiotune "
    "memoryBacking maxMemory genid sysinfo perf throttlegroups"
)
DEVICES_KNOWN = _words("console input audio")
DEVICES_LOST = _words(
    "graphics sound rng watchdog panic channel redirdev redirfilter parallel hub smartcard "
    "crypto pstore vsock"
)
FEATURES_KNOWN = _words("acpi apic pae vmport")
DISK_KNOWN = _words("driver source target backingStore readonly shareable alias address boot")
DISK_LOST = _words("iotune serial wwn vendor product blockio geometry throttlefilters")
DRIVER_OURS = {"cache": "none"}
DRIVER_KNOWN = _words("name type")
NIC_KNOWN = _words("mac source model target alias address boot driver")
NIC_UNSUPPORTED = {"virtualport": "a virtual port", "vlan": "a VLAN tag", "teaming": "teaming"}
KIB_OF = {"KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}
EMULATED_CPU = "qemu64"
EMULATORS = _words(
    "/usr/bin/qemu-system-x86_64 /usr/bin/qemu-kvm /usr/bin/kvm /usr/libexec/qemu-kvm"
)
"""What libvirt takes by itself; it writes that down as if it had been asked for."""
INTEGER_MAX = 2**31 - 1
"""The largest number that the inventory can hold."""
DIGITS_MAX = 15
ENDINGS = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy"}
MANAGERS = {
    "http://openstack.org/": "OpenStack",
    "http://ovirt.org/": "oVirt",
    "http://kubevirt.io": "KubeVirt",
}


@dataclass
class Definition:
    """One definition, as far as a VM of ours can say it, and the rest in words."""

    guest_id: UUID
    name: str
    memory_mib: int
    vcpus: int
    virt_type: str
    machine: str = DEFAULT_MACHINE
    boot: Boot | None = None
    disks: list[Disk] = field(default_factory=list)
    nics: list[ForeignNic] = field(default_factory=list)
    unsupported: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    @property
    def substance(self) -> tuple[object, ...]:
        """What makes a difference between what runs and what is defined."""
        macs = sorted(nic.mac for nic in self.nics)
        return (self.memory_mib, self.vcpus, self.virt_type, self.boot, self.disks, macs)


def read_definition(xml: str) -> Definition:
    """Read what libvirt gave; Invalid (`XML_UNREADABLE`) when it is not the XML of a domain."""
    root = parse(xml)
    found = Definition(
        guest_id=_id_of(root),
        name=root.findtext("name", ""),
        memory_mib=_mib(root, "memory"),
        vcpus=_number(root.findtext("vcpu")),
        virt_type=root.get("type", ""),
    )
    _limit_sizes(found)
    _read_top(root, found)
    _read_os(root.find("os") or ET.Element("os"), found)
    for device in root.iterfind("devices/*"):
        _read_device(device, found)
    _read_boot_order(root, found)
    return found


def cpu_losses(xml: str) -> set[str]:
    """What of the CPU would be lost, read from a definition: of what runs libvirt tells details."""
    root = parse(xml)
    cpu = root.find("cpu")
    mode = "default" if cpu is None else cpu.get("mode", "custom")
    if cpu is not None and cpu.findtext("model") == EMULATED_CPU and cpu.find("feature") is None:
        mode = "default"  # libvirt writes down what QEMU takes when nothing is asked for.
    ours = "host-model" if root.get("type") == VirtType.KVM else "default"
    lost = set() if mode == ours else {f"CPU mode {mode} (would be {ours})"}
    if cpu is not None and (cpu.find("topology") is not None or cpu.find("numa") is not None):
        lost.add("topology of the CPU")
    return lost


def _limit_sizes(found: Definition) -> None:
    if found.memory_mib > INTEGER_MAX:
        found.unsupported.add(f"memory of more than {INTEGER_MAX} MiB")
    if found.vcpus > INTEGER_MAX:
        found.unsupported.add(f"more than {INTEGER_MAX} CPUs")
    found.memory_mib = min(found.memory_mib, INTEGER_MAX)
    found.vcpus = min(found.vcpus, INTEGER_MAX)


def _read_top(root: ET.Element, found: Definition) -> None:
    if found.virt_type not in set(VirtType):
        found.unsupported.add(f"domain type {found.virt_type}")
    for element in root:
        if element.tag in LOST:
            found.lost.add(element.tag)
        elif element.tag not in KNOWN:
            found.unsupported.add(_plain(element.tag))
    for namespace, name in MANAGERS.items():
        if any(child.tag.startswith("{" + namespace) for child in root.iterfind("metadata/*")):
            found.unsupported.add(f"it is managed by {name}")
    _read_settings(root, found)


def _read_settings(root: ET.Element, found: Definition) -> None:
    for element in root.iterfind("features/*"):
        if element.tag not in FEATURES_KNOWN:
            found.lost.add(f"feature {_plain(element.tag)}")
    for tag, ours in ENDINGS.items():
        if (value := root.findtext(tag, ours)) != ours:
            found.lost.add(f"{tag} {value} (would be {ours})")
    if (offset := _attribute(root, "clock", "offset") or "utc") != "utc":
        found.lost.add(f"clock {offset} (would be utc)")
    if 0 < (current := _mib(root, "currentMemory")) < found.memory_mib:
        found.lost.add(f"balloon at {current} of {found.memory_mib} MiB")
    in_use = _number(_attribute(root, "vcpu", "current"), found.vcpus)
    if in_use < found.vcpus:
        found.lost.add(f"{in_use} of {found.vcpus} CPUs in use")


def _read_os(os: ET.Element, found: Definition) -> None:
    kind = os.find("type")
    if kind is None or kind.text != "hvm":
        found.unsupported.add("no full virtualisation")
        return
    if found.virt_type != VirtType.TEST:
        if (arch := kind.get("arch")) != "x86_64":
            found.unsupported.add(f"architecture {arch}")
        found.machine = kind.get("machine", DEFAULT_MACHINE)
    if os.get("firmware") or os.find("loader") is not None or os.find("nvram") is not None:
        found.unsupported.add("firmware other than the BIOS")
    for tag in ("init", "dtb", "acpi", "shim"):
        if os.find(tag) is not None:
            found.unsupported.add(f"boot with {tag}")
    if os.find("smbios") is not None:
        found.lost.add("smbios")
    if kernel := os.findtext("kernel"):
        values = {"kernel": kernel, "initrd": os.findtext("initrd")}
        try:
            found.boot = Boot(**values, cmdline=os.findtext("cmdline") or "")
        except ValidationError:
            found.unsupported.add(f"kernel {kernel}")
    _check_machine(found)


def _check_machine(found: Definition) -> None:
    try:
        GuestSpec(
            vm_id=found.guest_id,
            name=found.name,
            memory_mib=found.memory_mib,
            vcpus=found.vcpus,
            virt_type=VirtType.TEST,
            machine=found.machine,
        )
    except ValidationError:
        found.unsupported.add(f"machine {found.machine}")


def _read_device(device: ET.Element, found: Definition) -> None:
    tag = _plain(device.tag)
    if (reader := READERS.get(tag)) is not None:
        reader(device, found)
    elif tag in DEVICES_LOST:
        found.lost.add(tag)
    elif tag not in DEVICES_KNOWN:
        found.unsupported.add(tag)


def _read_serial(serial: ET.Element, found: Definition) -> None:
    if (kind := serial.get("type")) != "pty":
        found.lost.add(f"serial line on {kind} (would be a pty)")


def _read_balloon(balloon: ET.Element, found: Definition) -> None:
    if balloon.get("model") != "none":
        found.lost.add("memballoon")


def _read_video(video: ET.Element, found: Definition) -> None:
    if _attribute(video, "model", "type") != "none":
        found.lost.add("video")


def _read_emulator(emulator: ET.Element, found: Definition) -> None:
    if (path := (emulator.text or "").strip()) not in EMULATORS:
        found.lost.add(f"emulator {path} (would be the host's own)")


def _read_controller(controller: ET.Element, found: Definition) -> None:
    model = controller.get("model", "default")
    if controller.get("type") == "scsi" and model != "virtio-scsi":
        found.unsupported.add(f"SCSI controller {model}")


def _read_disk(disk: ET.Element, found: Definition) -> None:
    target, source = disk.find("target"), disk.find("source")
    where = {} if target is None else dict(target.attrib)
    label = f"disk {where.get('dev', '')}"
    path = None if source is None else source.get("file") or source.get("dev")
    device = disk.get("device", "disk")
    if path is None and device == "cdrom" and disk.get("type") in ("file", "block"):
        found.lost.add(f"empty CD-ROM drive {where.get('dev', '')}")
        return
    if disk.get("type") not in ("file", "block") or path is None:
        found.unsupported.add(f"{label} on {disk.get('type')}")
        return
    for element in (*disk, *(source if source is not None else ())):
        if element.tag in DISK_LOST:
            found.lost.add(f"{label}: {element.tag}")
        elif element.tag not in DISK_KNOWN:
            found.unsupported.add(f"{label}: {_plain(element.tag)}")
    driver = disk.find("driver")
    found.lost |= _driver_losses(label, driver)
    values = {
        "path": path,
        "format": "raw" if driver is None else driver.get("type", "raw"),
        "shareable": disk.find("shareable") is not None,
        "bus": where.get("bus"),
        "device": device,
        "read_only": device == "disk" and disk.find("readonly") is not None,
    }
    try:
        found.disks.append(Disk.model_validate(values))
    except ValidationError as error:
        parts = sorted({f"{part} {values[part]}" for part in _fields(error) if part in values})
        found.unsupported.add(f"{label}: {', '.join(parts) or 'an impossible combination'}")


def _driver_losses(label: str, driver: ET.Element | None) -> set[str]:
    """How a disk is cached, discards, and the like, where it was asked for otherwise than by us."""
    asked = {} if driver is None else driver.attrib
    return {
        f"{label}: {name} {value}" + (f" (would be {ours})" if ours else "")
        for name, value in asked.items()
        if name not in DRIVER_KNOWN and value != (ours := DRIVER_OURS.get(name))
    }


def _read_nic(nic: ET.Element, found: Definition) -> None:
    kind, source = nic.get("type"), nic.find("source")
    mac = _attribute(nic, "mac", "address") or ""
    label = f"NIC {mac}"
    bridge = None if source is None else source.get("bridge")
    if kind not in ("user", "bridge", "network") or (kind != "user" and bridge is None):
        network = "" if source is None else source.get("network", "")
        found.unsupported.add(f"{label} on {kind} {network}".strip())
        return
    if kind == "network" and source is not None:
        name = source.get("network", "")
        found.lost.add(f"{label}: libvirt's network {name} (would be its bridge {bridge})")
    for element in nic:
        if (what := NIC_UNSUPPORTED.get(element.tag)) is not None:
            found.unsupported.add(f"{label}: {what}")
        elif element.tag not in NIC_KNOWN:
            found.lost.add(f"{label}: {_plain(element.tag)}")
    model = _attribute(nic, "model", "type") or NicModel.RTL8139.value  # libvirt's own default
    try:
        card = Nic.model_validate({"network": "x", "mac": mac, "bridge": bridge, "model": model})
    except ValidationError as error:
        parts = ", ".join(sorted(_fields(error)))
        found.unsupported.add(f"{label}: {parts} (model {model}, bridge {bridge})")
        return
    found.nics.append(ForeignNic(mac=card.mac, model=card.model, bridge=card.bridge))


READERS: Mapping[str, Callable[[ET.Element, Definition], None]] = {
    "disk": _read_disk,
    "interface": _read_nic,
    "controller": _read_controller,
    "emulator": _read_emulator,
    "serial": _read_serial,
    "memballoon": _read_balloon,
    "video": _read_video,
}


def _read_boot_order(root: ET.Element, found: Definition) -> None:
    """A VM of ours boots from its first disk, then from its first CD-ROM."""
    if found.boot is not None:
        return
    ordered = [
        (_number(boot.get("order"), 0), device)
        for device in root.iterfind("devices/*")
        if (boot := device.find("boot")) is not None
    ]
    if ordered:
        first = min(ordered, key=lambda pair: pair[0])[1]
        disks = root.findall("devices/disk[@device='disk']")
        if first.get("device") == "cdrom":
            found.lost.add("boots from its CD-ROM first (would from its first disk)")
        elif not disks or first is not disks[0]:
            found.unsupported.add(f"boots from {_plain(first.tag)} other than its first disk")
        return
    devices = [boot.get("dev") for boot in root.iterfind("os/boot")]
    if devices and devices[0] == "cdrom":
        found.lost.add("boots from its CD-ROM first (would from its first disk)")
    elif devices and devices[0] != "hd":
        found.unsupported.add(f"boots from {devices[0]} first")


def _mib(root: ET.Element, tag: str) -> int:
    """Memory, rounded up; libvirt itself writes KiB. Invalid for a unit that it would not write."""
    unit = _attribute(root, tag, "unit") or "KiB"
    if unit not in KIB_OF:
        raise Invalid(
            "XML_UNREADABLE",
            f"{tag} is given in {unit}, not in {', '.join(KIB_OF)}",
            next_step="look at it with `virsh dumpxml` on its host",
        )
    return -(-_number(root.findtext(tag)) * KIB_OF[unit] // 1024)


def _id_of(root: ET.Element) -> UUID:
    try:
        return UUID(root.findtext("uuid", ""))
    except ValueError:
        raise Invalid(
            "XML_UNREADABLE",
            f"a definition has no UUID: its root is {_plain(root.tag)}",
            next_step="look at it with `virsh dumpxml` on its host",
        ) from None


def _attribute(element: ET.Element, child: str, name: str) -> str | None:
    inner = element.find(child)
    return None if inner is None else inner.get(name)


def _fields(error: ValidationError) -> set[str]:
    return {str(item["loc"][0]) for item in error.errors() if item["loc"]}


def _number(text: str | None, default: int = 0) -> int:
    digits = "" if text is None else text.strip()
    if not digits.isdecimal():
        return default
    # Python refuses to read thousands of digits; nothing that big is told from anything bigger.
    return int(digits) if len(digits) <= DIGITS_MAX else 10**DIGITS_MAX


def _plain(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]

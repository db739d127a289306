"""The guest: Debian's cloud kernel and an initial file system of four megabytes, built once.

The guest says READY on its serial console about two seconds after its start, writes the seconds it
has been up to its first disk (if any) once a second, and switches itself off when its ACPI power
button is pressed. Where it has a port for QEMU's guest agent it runs the real one, unless AGENT=off
stands on its command line. Boot it with kernel, initrd and command line as `Boot` gives them.

Races  two builders at once each write files of their own and rename them into place; the manifest
       goes last, and an image without one is built again.
"""

import gzip
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from domain.base import Frozen
from domain.errors import Unavailable
from domain.inventory import Boot
from lab import guest_agent
from lab.guest_agent import GuestFile
from lab.shell import SEARCH_PATH, run
from lab.state import write_private

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
READY = "HOLDFAST-GUEST-READY"
FAULT = "HOLDFAST-GUEST-FAULT"
RECIPE = 3
"""Raise it with each change of what is built, so that old images are not used on."""

CMDLINE = "console=ttyS0 quiet panic=1 mitigations=off no_timer_check"

MODULES = (
    "drivers/acpi/button.ko",
    "drivers/input/evdev.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/char/virtio_console.ko",
)
"""In the order of their dependencies."""

INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in {" ".join(Path(name).name for name in MODULES)}; do
  insmod /lib/$module || echo "{FAULT} $module" >/dev/console
done
acpid -l /dev/null
[ "$AGENT" = off ] || start-agent &
echo {READY} >/dev/console
while :; do
  if [ -b /dev/vda ]; then
    read -r up rest </proc/uptime
    echo "heartbeat $up" | dd of=/dev/vda bs=512 conv=sync,notrunc,fsync 2>/dev/null
  fi
  sleep 1
done
"""

POWER_OFF = "#!/bin/sh\npoweroff -f\n"
"""For the power button, and for a guest agent that is asked to shut its guest down."""


FOLDERS = ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "proc", "sbin", "sys", "var")


class Manifest(Frozen):
    """What an image was built from; `recipe` tells whether it is still the one wanted."""

    recipe: int
    packages: tuple[str, ...]


def cache_folder(var: Path) -> Path:
    """Where images lie: HOLDFAST_LAB_CACHE, or `lab-cache` under `var`."""
    return Path(os.environ.get("HOLDFAST_LAB_CACHE") or var / "lab-cache").resolve()


def boot(cache: Path) -> Boot:
    """How to boot the guest of a cache folder."""
    return Boot(kernel=str(cache / "vmlinuz"), initrd=str(cache / "initrd.gz"), cmdline=CMDLINE)


def build(cache: Path) -> Boot:
    """Build the image unless it is there; idempotent. Downloads two Debian packages (28 MB).

    Raises Unavailable when a package cannot be had.
    """
    manifest = cache / "manifest.json"
    if not _is_current(manifest):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as work:
            kernel = _unpacked(_kernel_package(), Path(work) / "kernel")
            agent = _unpacked(guest_agent.PACKAGE, Path(work) / "agent")
            _assemble(kernel.root, agent.root, cache)
        built = Manifest(recipe=RECIPE, packages=(kernel.archive, agent.archive))
        write_private(manifest, built.model_dump_json(indent=2))
    return boot(cache)


def _is_current(manifest: Path) -> bool:
    try:
        found = Manifest.model_validate_json(manifest.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return found.recipe == RECIPE


def _kernel_package() -> str:
    listing = run("apt-cache", "depends", KERNEL_METAPACKAGE)
    match = re.search(r"Depends: (linux-image-\S+-cloud-amd64\S*)", listing)
    if match is None:
        raise Unavailable(
            "LAB_NO_KERNEL_PACKAGE",
            f"apt knows no kernel behind {KERNEL_METAPACKAGE}",
            next_step="run `apt-get update`, then ask again",
        )
    return match[1]


class _Unpacked(Frozen):
    """A Debian package: the name of its archive, with its version, and where its files are."""

    archive: str
    root: Path


def _unpacked(package: str, folder: Path) -> _Unpacked:
    folder.mkdir()
    run("apt-get", "download", package, cwd=folder, timeout_s=300)
    archive = next(folder.glob("*.deb"))
    run("dpkg-deb", "-x", archive, folder / "root", timeout_s=120)
    return _Unpacked(archive=archive.name, root=folder / "root")


def _assemble(kernel: Path, agent: Path, cache: Path) -> None:
    vmlinuz = next((kernel / "boot").glob("vmlinuz-*"))
    modules = next((kernel / "lib/modules").iterdir()) / "kernel"
    initrd = kernel / "initrd.gz"
    files = (*_guest_files(modules), *guest_agent.guest_files(agent))
    initrd.write_bytes(gzip.compress(cpio(files), mtime=0))
    # Hypervisors may run under another user than the one that built the image.
    for draft, name in ((vmlinuz, "vmlinuz"), (initrd, "initrd.gz")):
        draft.chmod(0o644)
        draft.replace(cache / name)


def _guest_files(modules: Path) -> list[GuestFile]:
    busybox = shutil.which("busybox", path=SEARCH_PATH)
    if busybox is None:
        raise Unavailable("LAB_PROGRAM_MISSING", "busybox-static is not installed")
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    return [
        *((name, directory, b"") for name in (*FOLDERS, *guest_agent.FOLDERS)),
        ("bin/busybox", program, Path(busybox).read_bytes()),
        ("init", program, INIT.encode()),
        ("etc/acpi/PWRF/00000080", program, POWER_OFF.encode()),
        ("sbin/shutdown", program, POWER_OFF.encode()),
        *(
            (f"lib/{Path(name).name}", stat.S_IFREG | 0o644, (modules / name).read_bytes())
            for name in MODULES
        ),
    ]


def cpio(files: Iterable[GuestFile]) -> bytes:
    """A `newc` archive, the only format the kernel unpacks; files are (name, mode, content)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate((*files, ("TRAILER!!!", 0, b"")), start=1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)

"""The guest: Debian's cloud kernel and an initial file system of a megabyte, built once.

The guest says READY on its serial console about two seconds after its start, writes the seconds it
has been up to its first disk (if any) once a second, and switches itself off when its ACPI power
button is pressed. Boot it with kernel, initrd and command line as `Boot` gives them.

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
from lab.shell import SEARCH_PATH, run
from lab.state import write_private

KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
READY = "HOLDFAST-GUEST-READY"
FAULT = "HOLDFAST-GUEST-FAULT"
RECIPE = 2
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
echo {READY} >/dev/console
while :; do
  if [ -b /dev/vda ]; then
    read -r up rest </proc/uptime
    echo "heartbeat $up" | dd of=/dev/vda bs=512 conv=sync,notrunc,fsync 2>/dev/null
  fi
  sleep 1
done
"""

POWER_BUTTON = "#!/bin/sh\npoweroff -f\n"


class Manifest(Frozen):
    """What an image was built from; `recipe` tells whether it is still the one wanted."""

    recipe: int
    package: str


def cache_folder(var: Path) -> Path:
    """Where images lie: HOLDFAST_LAB_CACHE, or `lab-cache` under `var`."""
    return Path(os.environ.get("HOLDFAST_LAB_CACHE") or var / "lab-cache").resolve()


def boot(cache: Path) -> Boot:
    """How to boot the guest of a cache folder."""
    return Boot(kernel=str(cache / "vmlinuz"), initrd=str(cache / "initrd.gz"), cmdline=CMDLINE)


def build(cache: Path) -> Boot:
    """Build the image unless it is there; idempotent. Downloads one Debian package (27 MB).

    Raises Unavailable when the package cannot be had.
    """
    manifest = cache / "manifest.json"
    if not _is_current(manifest):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as work:
            package = _download_kernel(Path(work))
            _assemble(Path(work), cache)
        write_private(manifest, Manifest(recipe=RECIPE, package=package).model_dump_json(indent=2))
    return boot(cache)


def _is_current(manifest: Path) -> bool:
    try:
        found = Manifest.model_validate_json(manifest.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return found.recipe == RECIPE


def _download_kernel(work: Path) -> str:
    listing = run("apt-cache", "depends", KERNEL_METAPACKAGE)
    match = re.search(r"Depends: (linux-image-\S+-cloud-amd64\S*)", listing)
    if match is None:
        raise Unavailable(
            "LAB_NO_KERNEL_PACKAGE",
            f"apt knows no kernel behind {KERNEL_METAPACKAGE}",
            next_step="run `apt-get update`, then ask again",
        )
    run("apt-get", "download", match[1], cwd=work, timeout_s=300)
    archive = next(work.glob("*.deb"))
    run("dpkg-deb", "-x", archive, work / "root", timeout_s=120)
    return archive.name


def _assemble(work: Path, cache: Path) -> None:
    root = work / "root"
    kernel = next((root / "boot").glob("vmlinuz-*"))
    modules = next((root / "lib/modules").iterdir()) / "kernel"
    initrd = work / "initrd.gz"
    initrd.write_bytes(gzip.compress(cpio(_guest_files(modules)), mtime=0))
    # Hypervisors may run under another user than the one that built the image.
    for draft, name in ((kernel, "vmlinuz"), (initrd, "initrd.gz")):
        draft.chmod(0o644)
        draft.replace(cache / name)


def _guest_files(modules: Path) -> list[tuple[str, int, bytes]]:
    busybox = shutil.which("busybox", path=SEARCH_PATH)
    if busybox is None:
        raise Unavailable("LAB_PROGRAM_MISSING", "busybox-static is not installed")
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    folders = ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "proc", "sys", "var")
    return [
        *((name, directory, b"") for name in folders),
        ("bin/busybox", program, Path(busybox).read_bytes()),
        ("init", program, INIT.encode()),
        ("etc/acpi/PWRF/00000080", program, POWER_BUTTON.encode()),
        *(
            (f"lib/{Path(name).name}", stat.S_IFREG | 0o644, (modules / name).read_bytes())
            for name in MODULES
        ),
    ]


def cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
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

"""QEMU's guest agent for the lab's guest: Debian's own program and the libraries it is linked to.

The program comes out of its Debian package, unpacked; the libraries are those of this machine,
which has them because its QEMU is linked to the same ones.
"""

import re
import stat
from pathlib import Path
from typing import TypeAlias

from domain.errors import Unavailable
from lab.shell import run

GuestFile: TypeAlias = tuple[str, int, bytes]  # name in the guest, mode, content

PACKAGE = "qemu-guest-agent"
PROGRAM = "qemu-ga"
PORT = "org.qemu.guest_agent.0"

START = f"""\
#!/bin/sh
# Run the guest agent where the guest has a port for it. Nobody starts it again: one that is stopped
# or killed stays away, until the next boot.
set -- /sys/bus/virtio/drivers/virtio_console/virtio*
[ -e "$1" ] || exit 0
# The device tells the names of its ports one by one, after the driver has been loaded.
while :; do
  for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name" 2>/dev/null)" = {PORT} ]; then
      exec {PROGRAM} -m virtio-serial -p "/dev/${{port##*/}}" -t /run
    fi
  done
  sleep 0.1
done
"""

FOLDERS = ("lib64", "run")


def guest_files(package: Path) -> list[GuestFile]:
    """What the guest needs of the unpacked package, and `start-agent`, which its init calls.

    Raises Unavailable when a library is not on this machine.
    """
    program = package / "usr/sbin" / PROGRAM
    executable = stat.S_IFREG | 0o755
    return [
        (f"bin/{PROGRAM}", executable, program.read_bytes()),
        ("bin/start-agent", executable, START.encode()),
        *((name, executable, path.read_bytes()) for name, path in _libraries(program)),
    ]


def _libraries(program: Path) -> list[tuple[str, Path]]:
    """Name in the guest and file on this machine, the loader included."""
    said = run("ldd", program)
    if absent := re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE):
        raise Unavailable(
            "LAB_LIBRARY_MISSING",
            f"{PROGRAM} needs {', '.join(absent)}, which this machine has not",
            next_step=f"`apt-get install {PACKAGE}` brings them; then ask again",
        )
    shared = re.findall(r"^\s*(\S+) => (/\S+)", said, re.MULTILINE)
    loaders = re.findall(r"^\s*(/\S+) \(", said, re.MULTILINE)
    return [
        *((f"lib/{name}", Path(path)) for name, path in shared),
        *((path.lstrip("/"), Path(path)) for path in loaders),
    ]

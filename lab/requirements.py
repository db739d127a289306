"""What the lab needs from the machine, and which Debian package brings what is absent."""

import importlib.util
import os
import shutil
from pathlib import Path

from domain.errors import Refused
from lab.shell import SEARCH_PATH

PACKAGE_OF_PROGRAM = {
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "fence_ipmilan": "fence-agents",
    "ipmitool": "ipmitool",
    "ip": "iproute2",
    "busybox": "busybox-static",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "bash": "bash",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "pgrep": "procps",
    "dpkg-deb": "dpkg",
    "ldd": "libc-bin",
    "apt-get": "apt",
}
PACKAGE_OF_PLUGIN = {
    "connection-driver/libvirt_driver_qemu.so": "libvirt-daemon-driver-qemu",
    "connection-driver/libvirt_driver_storage.so": "libvirt-daemon",
    "storage-backend/libvirt_storage_backend_fs.so": "libvirt-daemon",
}
PACKAGE_OF_MODULE = {"pyghmi": "pyghmi", "sushy_tools": "sushy-tools"}
PLUGIN_FOLDER = Path("/usr/lib/x86_64-linux-gnu/libvirt")


def missing() -> tuple[str, ...]:
    """Debian packages that are absent, sorted; empty when the lab can run."""
    wanted = {
        package
        for program, package in PACKAGE_OF_PROGRAM.items()
        if shutil.which(program, path=SEARCH_PATH) is None
    }
    wanted |= {
        package
        for plugin, package in PACKAGE_OF_PLUGIN.items()
        if not (PLUGIN_FOLDER / plugin).exists()
    }
    return tuple(sorted(wanted))


def obstacles() -> tuple[str, ...]:
    """Everything that keeps a lab from running here, each with what to do; empty when nothing."""
    found = []
    if os.geteuid() != 0:
        found.append("namespaces and bridges need root: run it as root")
    absent = missing()
    if absent:
        packages = " ".join(absent)
        found.append(f"packages are missing: apt-get install --no-install-recommends {packages}")
    for module, package in PACKAGE_OF_MODULE.items():
        if importlib.util.find_spec(module) is None:
            found.append(f"the Python package {package} is missing: pip install 'holdfast[lab]'")
    return tuple(found)


def require() -> None:
    """Raise Refused, naming everything that is missing and how to get it."""
    found = obstacles()
    if found:
        raise Refused("LAB_NOT_POSSIBLE", "a lab cannot run here", next_step="; ".join(found))

"""What a host finds on its disk: libvirt's configuration and the script that is its process 1.

The folder of a host outlives power cuts as a disk does: definitions, logs and libvirt's caches
stay. Its /run is a fresh tmpfs at each power on, so what a real reboot forgets is forgotten here.
"""

from pathlib import Path

from lab.state import HostPlan

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "{uuid}"
"""
"""TCP without authentication is for the lab alone, on a bridge that leaves the machine nowhere."""

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
migration_host = "{address}"
migration_address = "{address}"
keepalive_interval = 1
keepalive_count = 3
"""
"""`stdio_handler`: there is no virtlogd; a guest's start fails without this line."""

INIT = """\
#!/bin/bash
# Process 1 of a host. It reaps: libvirt's capability probes become its children, and a process 1
# that leaves them as zombies costs the first guest start 80 seconds.
hostname {lab}-{name} || exit 1
mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/lock /run/sshd || exit 1
mount --bind {folder}/varlib /var/lib/libvirt || exit 1
mount --bind {folder}/varlog /var/log/libvirt || exit 1
mount --bind {folder}/varcache /var/cache/libvirt || exit 1
mount --bind {folder}/etc /etc/libvirt || exit 1
mount -t tmpfs tmpfs /dev/shm || exit 1
while :; do
  /usr/sbin/sshd -D -e -f {folder}/ssh/sshd_config
  echo "sshd ended with $?, starting it again"
  sleep 1
done &
# A service manager restarts libvirtd when it dies; guests live on and are found again.
while :; do
  libvirtd --listen
  echo "libvirtd ended with $?, starting it again"
  sleep 0.2
done
"""

FOLDERS = ("varlib", "varlog", "varcache", "etc", "etc/qemu")


def init_script(folder: Path) -> Path:
    """Where the script lies; its path in a command line marks the process as ours."""
    return folder / "init"


def console_log(folder: Path) -> Path:
    """What process 1 and libvirtd say."""
    return folder / "console.log"


def install(lab: str, host: HostPlan, folder: Path) -> None:
    """Write a host's files; idempotent, and keeps what libvirt stored there."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for mount_point in ("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"):
        Path(mount_point).mkdir(parents=True, exist_ok=True)
    (folder / "etc/libvirtd.conf").write_text(
        LIBVIRTD_CONF.format(address=host.address, uuid=host.uuid)
    )
    (folder / "etc/qemu.conf").write_text(QEMU_CONF.format(address=host.address))
    script = init_script(folder)
    script.write_text(INIT.format(lab=lab, name=host.name, folder=folder))
    script.chmod(0o755)

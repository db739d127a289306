"""The sshd of a host: it lets one key in, for one command, which restarts that host's libvirtd.

It is started and supervised by the host's process 1, in the host's namespaces, so it ends with the
host. Host keys and the lab's own key are made once and stay on the disk; nothing of the machine's
own sshd is read or changed.
"""

from pathlib import Path

from domain.base import Frozen
from lab.shell import run
from lab.state import HostPlan, write_private

USER = "root"
"""The lab's hosts run as root, and have no other account of theirs."""

PORT = 22

SSHD_CONFIG = """\
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
AuthenticationMethods publickey
PermitRootLogin forced-commands-only
AllowUsers {user}
AcceptEnv none
"""

RESTART = """\
#!/bin/bash
# What the engine's key is tied to. A libvirtd that is stopped takes no other signal; its guests are
# not its children, and process 1 starts it again.
before=$(pgrep -P 1 -x libvirtd)
[ -z "$before" ] || kill -KILL "$before"
for _ in {{1..100}}; do
  now=$(pgrep -P 1 -x libvirtd)
  if [ -n "$now" ] && [ "$now" != "$before" ]; then
    echo "$(date -Is) libvirtd $before restarted as $now" >>{folder}/restarts.log
    exit 0
  fi
  sleep 0.1
done
echo "libvirtd does not start" >&2
exit 1
"""


class SshEntry(Frozen):
    """How to have a host's libvirtd restarted: the key that it lets in, and its own."""

    user: str
    port: int
    key_file: str
    host_key: str


def entry(lab: Path, host: Path) -> SshEntry:
    """What an engine has to know to reach a host of a lab, by their folders."""
    keys = {"key_file": str(key_file(lab)), "host_key": host_key(host)}
    return SshEntry(user=USER, port=PORT, **keys)


def folder_of(host: Path) -> Path:
    """Where a host's sshd has its files."""
    return host / "ssh"


def config_file(host: Path) -> Path:
    """What its process 1 starts it with."""
    return folder_of(host) / "sshd_config"


def key_file(lab: Path) -> Path:
    """The private key that every host of a lab lets in."""
    return lab / "ssh" / "restart_key"


def host_key(host: Path) -> str:
    """The public key by which a host is known, without its comment."""
    return _public(folder_of(host) / "host_key")


def restarts(host: Path) -> tuple[str, ...]:
    """One line for each restart of its libvirtd that was asked for over SSH."""
    try:
        return tuple((folder_of(host) / "restarts.log").read_text().splitlines())
    except FileNotFoundError:
        return ()


def install(lab: Path, host: HostPlan, folder: Path) -> None:
    """Write a host's files and make the keys that are missing; idempotent."""
    own = folder_of(folder)
    _make_key(key_file(lab))
    _make_key(own / "host_key")
    values = {"address": host.address, "port": PORT, "folder": own, "user": USER}
    write_private(config_file(folder), SSHD_CONFIG.format(**values))
    script = own / "restart-libvirtd"
    script.write_text(RESTART.format(folder=own))
    script.chmod(0o755)
    tied = f'restrict,command="{script}" {_public(key_file(lab))}\n'
    write_private(own / "authorized_keys", tied)


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)


def _public(path: Path) -> str:
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])

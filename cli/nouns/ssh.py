"""SSH access to hosts: what it is given as, and how it and the restarts over it are shown.

The private key is read from its file here and goes to the engine in the request; it never stands
on a command line.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.failures import Exit, Json, failure
from cli.render import ago, clock

SshUser = Annotated[
    str | None,
    typer.Option(metavar="USER", help="Give SSH access: the account that restarts libvirtd."),
]
SshPort = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Where its sshd listens; 22 unless told.")
]
SshKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="… with this private key, which is kept sealed."),
]
SshHostKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY|@FILE",
        help="… of the host with this public key, as in its /etc/ssh/ssh_host_ed25519_key.pub.",
    ),
]
NoSsh = Annotated[bool, typer.Option("--no-ssh", help="Take the SSH access away.")]


def access(user: str | None, port: int | None, key_file: Path | None, host_key: str | None) -> Json:
    """What a request says of the access; empty when none of it is named.

    Failure when something is missing: an access is given as a whole, and no key is trusted unseen.
    """
    named = {"--ssh-user": user, "--ssh-key-file": key_file, "--ssh-host-key": host_key}
    if port is None and not any(named.values()):
        return {}
    if missing := [option for option, value in named.items() if not value]:
        raise failure(
            Exit.USAGE,
            "SSH_ACCESS_INCOMPLETE",
            f"{', '.join(missing)} missing: an access is given as a whole",
            next_step="name user, key file and host key; `ssh-keyscan -t ed25519 HOST` shows a"
            " host's key, which you compare on the host itself",
        )
    assert key_file is not None
    assert host_key is not None
    pinned = _read(Path(host_key[1:])) if host_key.startswith("@") else host_key
    return {
        "user": user,
        "port": port or 22,
        "host_key": " ".join(pinned.split()[:2]),
        "private_key": _read(key_file),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise failure(Exit.USAGE, "FILE_UNREADABLE", f"{path}: {why}") from None


def shown(found: Json, now: datetime) -> Iterable[tuple[str, str | None]]:
    """Lines on a host's SSH access, and on the restarts of its libvirtd."""
    return (("ssh access", _access(found["access"])), ("soft step", _step(found["soft_step"], now)))


def _access(ssh: Json | None) -> str:
    if ssh is None:
        return "none: a libvirtd that hangs there is left to a person"
    return f"{ssh['user']}, port {ssh['port']}, key {ssh['fingerprint']}"


def _step(step: Json | None, now: datetime) -> str | None:
    return None if step is None else "; ".join(_parts(step, now))


def _parts(step: Json, now: datetime) -> Iterator[str]:
    by = "by itself" if step["automatic"] else "for a person"
    yield f"libvirtd restarted {by} {ago(step['at'], now)}: {step['outcome'] or 'under way'}"
    if step["outcome"] not in (None, "answered"):
        yield str(step["detail"])
    if step["tries"]:
        yield f"{step['tries']} of {step['tries_max']} tries in an hour"
    if step["next_try_at"]:
        yield f"the next not before {clock(step['next_try_at'])}"

"""Hosts over SSH, by OpenSSH's client, for one command: restarting libvirtd.

The key that a host lets in should be tied there to that command (`restrict,command="…"`), so what
is asked for is only a word; a host that has not tied it does not know the word, and says so.

Invariants  The host's key is pinned, and nothing else is trusted: no file of the machine or of the
            user is read, no agent is asked, nothing is learnt. Private key and pinned key are files
            in memory that have no name (memfd), which the client opens by this process's number:
            neither reaches a disk, argv, the environment, a log or an error.
            Nothing of the client outlives its deadline or this process (`drivers.fence_process`).
"""

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

import structlog
from pydantic import SecretStr

from domain.errors import EngineError, NoAnswer, Refused
from domain.ssh_access import SshAccess, fingerprint
from drivers.fence_process import Ended, run_contained

PRIVATE_KEY = "private_key"
WORD = "restart-libvirtd"
"""What is asked for. A key that is tied to a command gets that, whatever is asked."""

ALIAS = "pinned"
"""The name under which the pinned key stands, so that addresses and ports do not matter."""

CONNECT_S = 10
"""Until TCP is open and the host has named itself. Higher: a host that is gone is waited for.
Lower: a loaded host is given up."""

OURS = 255
"""The client's own exit code; every other one is the command's."""

TAIL_MAX = 300
PATH = "/usr/local/bin:/usr/bin:/bin"

log = structlog.get_logger(__name__)
Secrets = Callable[[UUID], Awaitable[Mapping[str, SecretStr]]]

CHANGED = re.compile(
    r"host key verification failed|remote host identification has changed|no .* host key is known",
    re.IGNORECASE,
)
NOT_LET_IN = re.compile(r"permission denied|too many authentication failures", re.IGNORECASE)


class OpenSsh:
    """Fits `Ssh`. `secrets` gives the secrets of a host's access by the host's id."""

    def __init__(self, secrets: Secrets, client: str = "ssh") -> None:
        self._secrets = secrets
        self._client = client

    async def restart_libvirtd(self, access: SshAccess, deadline_s: float) -> None:
        """Ask for it, and wait until the host's command has ended well; repeatable."""
        key = (await self._secrets(access.host_id)).get(PRIVATE_KEY)
        if key is None:
            raise Refused(
                "NO_SSH_ACCESS",
                f"the SSH access to {access.address} was taken away",
                next_step="give it again: `holdfast host edit HOST --ssh-user …`",
            )
        pinned = f"{ALIAS} {access.host_key}\n"
        with _in_memory(key.get_secret_value()) as identity, _in_memory(pinned) as known:
            command = (self._client, *_options(access, identity, known), access.address, WORD)
            try:
                ended = await run_contained(command, "", {"PATH": PATH, "LC_ALL": "C"}, deadline_s)
            except OSError as error:
                raise NoAnswer(
                    "SSH_NOT_POSSIBLE",
                    f"OpenSSH's client could not be started: {error.strerror}",
                    next_step="install openssh-client on the engine's machines",
                ) from None
        failed = _error_of(access, ended, deadline_s)
        if failed is not None:
            log.info("ssh failed", address=access.address, code=failed.code, why=failed.detail)
            raise failed


def _options(access: SshAccess, identity: str, known: str) -> tuple[str, ...]:
    said = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "none",
        "HostKeyAlias": ALIAS,
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "IdentityFile": identity,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "ClearAllForwardings": "yes",
        "ControlPath": "none",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    options = [part for name, value in said.items() for part in ("-o", f"{name}={value}")]
    return ("-F", "none", "-T", "-p", str(access.port), "-l", access.user, *options, "--")


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A file without a name, of this user alone; the path by which other processes of it open it.

    The client closes what it inherits and opens its files itself, so this process keeps it open.
    """
    descriptor = os.memfd_create("holdfast-ssh", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        left = text.encode()
        while left:
            left = left[os.write(descriptor, left) :]
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _error_of(access: SshAccess, ended: Ended, deadline_s: float) -> EngineError | None:
    """What went wrong; None where nothing did."""
    place, said = f"{access.user}@{access.address}:{access.port}", _tail(ended.stderr)
    if ended.exit_code == 0:
        return None
    if ended.exit_code is None:
        return NoAnswer("SSH_NO_ANSWER", f"{place} did not end within {deadline_s:g} s")
    if ended.exit_code != OURS:
        return Refused(
            "SSH_COMMAND_FAILED",
            f"the command at {place} ended with {ended.exit_code}: {said}",
            next_step="try it by hand on the host; docs/soft-step.md says how a key is tied to it",
        )
    if CHANGED.search(ended.stderr):
        return Refused(
            "SSH_HOST_KEY_CHANGED",
            f"{place} is not the host whose key is pinned ({fingerprint(access.host_key)})",
            next_step="find out why before anything else; then pin the right key: `holdfast host"
            " edit HOST --ssh-host-key …`",
        )
    if NOT_LET_IN.search(ended.stderr):
        return Refused(
            "SSH_NOT_LET_IN",
            f"{place} does not let the engine's key in: {said}",
            next_step="put its public half into that account's authorized_keys",
        )
    return NoAnswer("SSH_NO_ANSWER", f"{place} could not be reached: {said}")


def _tail(text: str) -> str:
    return " ".join(text.split())[-TAIL_MAX:] or "it said nothing"

"""OpenSSH's client as the engine runs it: what it is given, and what its ends mean.

A script stands in for the client. That a real one lets a real sshd restart a libvirtd is shown in
the lab.
"""

import json
import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from domain.errors import EngineError, NoAnswer, Refused
from domain.ssh_access import SshAccess
from drivers.ssh import OpenSsh

pytestmark = pytest.mark.unit
KEY = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
ACCESS = SshAccess(host_id=uuid4(), address="h1", user="holdfast", port=2222, host_key=HOST_KEY)

CLIENT = """\
#!{python}
import json, os, stat, sys
argv = sys.argv[1:]
options = dict(a.split("=", 1) for a in argv if "=" in a)
identity, known = options["IdentityFile"], options["UserKnownHostsFile"]
seen = dict(argv=argv, env=dict(os.environ), options=options)
seen |= dict(identity=open(identity).read(), known=open(known).read())
seen |= dict(mode=stat.S_IMODE(os.stat(identity).st_mode), real=os.path.realpath(identity))
json.dump(seen, open({out!r}, "w"))
print({said!r}, file=sys.stderr)
{then}
sys.exit({code})
"""


class Stand:
    """A client that writes down what it was given, and ends as it is told to."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "seen.json"
        self._path = folder / "ssh"

    def ends(self, code: int, said: str = "", then: str = "") -> OpenSsh:
        python = os.path.realpath("/proc/self/exe")
        values = {"python": python, "out": str(self.out), "said": said, "then": then, "code": code}
        self._path.write_text(CLIENT.format(**values))
        self._path.chmod(0o755)

        async def secrets(host_id: UUID) -> dict[str, SecretStr]:
            assert host_id == ACCESS.host_id
            return {"private_key": SecretStr(KEY)}

        return OpenSsh(secrets, str(self._path))

    async def fails(
        self, code: int, said: str, then: str = "", within_s: float = 10
    ) -> EngineError:
        with pytest.raises(EngineError) as failed:
            await self.ends(code, said, then).restart_libvirtd(ACCESS, within_s)
        assert "sesame" not in failed.value.detail
        return failed.value


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_the_key_is_read_from_memory_and_stands_nowhere_else(stand: Stand) -> None:
    await stand.ends(0).restart_libvirtd(ACCESS, 10)
    seen = json.loads(stand.out.read_text())
    assert (seen["identity"], seen["mode"]) == (KEY, 0o600)
    assert "memfd" in seen["real"], "it is a file of some disk"
    assert "c2VzYW1l" not in json.dumps([seen["argv"], seen["env"]])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(int(seen["options"]["IdentityFile"].rpartition("/")[2]))


async def test_only_the_pinned_key_is_trusted_and_nothing_of_the_machine_is_read(
    stand: Stand,
) -> None:
    await stand.ends(0).restart_libvirtd(ACCESS, 10)
    seen = json.loads(stand.out.read_text())
    options = seen["options"]
    assert seen["known"] == f"pinned {HOST_KEY}\n"
    assert options["HostKeyAlias"] == "pinned"
    wanted = {"BatchMode": "yes", "StrictHostKeyChecking": "yes", "GlobalKnownHostsFile": "none"}
    wanted |= {"IdentitiesOnly": "yes", "IdentityAgent": "none", "ControlPath": "none"}
    wanted |= {"UpdateHostKeys": "no", "ClearAllForwardings": "yes"}
    assert {name: options[name] for name in wanted} == wanted
    assert seen["argv"][:2] == ["-F", "none"]
    assert seen["argv"][-3:] == ["--", "h1", "restart-libvirtd"]
    assert "SSH_AUTH_SOCK" not in seen["env"]
    assert "HOME" not in seen["env"]


@pytest.mark.parametrize(
    ("code", "said", "kind", "expected"),
    [
        (255, "Host key verification failed.", Refused, "SSH_HOST_KEY_CHANGED"),
        (255, "holdfast@h1: Permission denied (publickey).", Refused, "SSH_NOT_LET_IN"),
        (255, "connect to host h1 port 22: Connection refused", NoAnswer, "SSH_NO_ANSWER"),
        (255, "", NoAnswer, "SSH_NO_ANSWER"),
        (1, "libvirtd does not start", Refused, "SSH_COMMAND_FAILED"),
        (127, "restart-libvirtd: command not found", Refused, "SSH_COMMAND_FAILED"),
    ],
)
async def test_each_end_says_what_it_means(
    stand: Stand, code: int, said: str, kind: type[EngineError], expected: str
) -> None:
    error = await stand.fails(code, said)
    assert (type(error), error.code) == (kind, expected)


async def test_a_client_that_does_not_end_is_ended(stand: Stand) -> None:
    for within_s in (2, 10, 60):  # a busy machine may not have begun it in the first
        error = await stand.fails(0, "", "import time; time.sleep(600)", within_s=within_s)
        assert error.code == "SSH_NO_ANSWER"
        if stand.out.exists():
            break
    assert json.loads(stand.out.read_text())["known"], "it never began"


async def test_access_that_was_taken_away_is_no_access() -> None:
    async def nothing(_host_id: UUID) -> dict[str, SecretStr]:
        return {}

    with pytest.raises(Refused) as failed:
        await OpenSsh(nothing).restart_libvirtd(ACCESS, 1)
    assert failed.value.code == "NO_SSH_ACCESS"

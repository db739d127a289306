"""SSH access to a host, as a part of its configuration.

The private key goes straight from the request to the sealer; in what is stored of the request, in
events and in answers it is never more than the fact that it changed.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from domain.base import Frozen
from domain.errors import Invalid, Refused
from domain.ssh_access import (
    HOST_KEY,
    USER,
    address_of,
    fingerprint,
    wrong_with_host_key,
    wrong_with_private_key,
)
from engine.actions.base import Problems, Tx
from engine.actions.fence_devices import SecretSealer
from store import soft_steps
from store.rows import Row

PRIVATE_KEY = "private_key"
"""Its name among the sealed secrets of an access."""


class Access(Frozen):
    """How a host is reached over SSH, to restart its libvirtd and for nothing else."""

    user: str = Field(pattern=USER)
    port: int = Field(default=22, ge=1, le=65535)
    host_key: str = Field(pattern=HOST_KEY)
    private_key: SecretStr = Field(max_length=16 * 1024)

    @field_validator("host_key")
    @classmethod
    def _is_a_key(cls, value: str) -> str:
        if why := wrong_with_host_key(value):
            raise PydanticCustomError("host_key", "{why}", {"why": why})
        return value


@dataclass(frozen=True)
class AccessChange:
    """What becomes of a host's access. `given` None: it is taken away."""

    before: Row | None = None
    given: Access | None = None
    changes: bool = False

    def told(self) -> dict[str, Any]:
        """What the audit event shows of it afterwards."""
        if self.given is None:
            return {"ssh": None}
        return {"ssh": _shown(self.given.model_dump(mode="json"))}

    def told_before(self) -> dict[str, Any]:
        """… and before."""
        return {"ssh": _shown(self.before) if self.before else None}


def _shown(row: Row) -> dict[str, Any]:
    key = row["host_key"]
    return {"user": row["user"], "port": row["port"], "host_key": fingerprint(key)}


NO_CHANGE = AccessChange()


async def access_change(
    tx: Tx, sealer: SecretSealer, host: Row, given: Access | None, problems: Problems
) -> AccessChange:
    """What a request for this access (None: for none) changes, its key being looked at."""
    before = await soft_steps.access_of(tx.connection, host["id"])
    if given is None:
        return AccessChange(before, None, changes=before is not None)
    key = given.private_key.get_secret_value()
    if why := wrong_with_private_key(key):
        problems.append(_unusable(why))
    if not address_of(host["uri"]):
        problems.append(
            Invalid(
                "SSH_NO_ADDRESS",
                f"{host['uri']} names no machine that SSH could reach",
                next_step="give the host an address that names its machine",
            )
        )
    same = before is not None and all(
        before[name] == getattr(given, name) for name in ("user", "port", "host_key")
    )
    changes = not same or before is None or _key_of(sealer, before) != key
    return AccessChange(before, given, changes=changes)


def _key_of(sealer: SecretSealer, row: Row) -> str | None:
    try:
        opened = sealer.open(row["secrets"])
    except Refused:
        return None  # sealed with another key: it is entered again
    found = opened.get(PRIVATE_KEY)
    return None if found is None else found.get_secret_value()


def _unusable(why: str) -> Invalid:
    return Invalid(
        "SSH_KEY_UNUSABLE",
        why,
        next_step="make one for this alone: `ssh-keygen -t ed25519 -N '' -f FILE`",
    )


async def write_access(tx: Tx, sealer: SecretSealer, host: Row, change: AccessChange) -> None:
    """Write what was planned; the key is sealed."""
    if not change.changes:
        return
    if change.given is None:
        await soft_steps.take_access(tx.connection, host["id"])
        return
    given = change.given
    row: Row = {"host_id": host["id"], "user": given.user, "port": given.port}
    row |= {"host_key": given.host_key, "created_at": tx.now}
    sealed = sealer.seal({PRIVATE_KEY: given.private_key.get_secret_value()})
    await soft_steps.give_access(tx.connection, row | {"secrets": sealed})

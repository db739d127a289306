"""How a host is reached over SSH for the one thing that is done there: restarting its libvirtd.

The host's key is pinned by whoever configures the access: nothing is trusted at first use. The
private key never stands here; the store keeps it sealed, and only the driver opens it.
"""

import base64
import binascii
import re
import struct
from hashlib import sha256
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field

from domain.base import Frozen

USER = r"^[a-z_][a-z0-9_-]{0,31}$"
"""Names of accounts, as `useradd` takes them."""

ADDRESS = r"^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,253}$"
"""A name or an IP address; it stands in an argument list, so none begins as an option does."""

HOST_KEY = r"^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]{40,3000}={0,2}$"
"""A host's public key as in its `/etc/ssh/ssh_host_*_key.pub`, without the comment."""

PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END ([A-Z]+ )?PRIVATE KEY-----\n"
)
OPENSSH_MAGIC = b"openssh-key-v1\x00"
KEY_MAX = 16 * 1024
"""Bytes of a private key; RSA with 8192 bits has 6.5 KiB."""


class SshAccess(Frozen):
    """Where a host's SSH is, and by which key it is known. `address` is that of its libvirt."""

    host_id: UUID
    address: str = Field(pattern=ADDRESS)
    user: str = Field(pattern=USER)
    port: int = Field(ge=1, le=65535)
    host_key: str = Field(pattern=HOST_KEY)


def address_of(uri: str) -> str | None:
    """The machine in a libvirt address; None where it names none, as `test:///default`."""
    try:
        found = urlsplit(uri).hostname or ""
    except ValueError:
        return None
    return found if re.match(ADDRESS, found) else None


def fingerprint(host_key: str) -> str:
    """What `ssh-keygen -l` shows of a public key."""
    digest = sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def wrong_with_host_key(host_key: str) -> str | None:
    """Why a text of the right shape is no public key; None when it is one."""
    kind, blob = host_key.split()
    try:
        whole = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return "the host key is not base64"
    named = _text(whole)
    if named != kind.encode():
        return f"the host key says that it is {kind}, and holds something else"
    return None


def wrong_with_private_key(key: str) -> str | None:
    """Why a text cannot be used as a private key without asking anybody; None when it can."""
    cipher = _cipher_of(key)
    if cipher is None:
        return "this is no private key as `ssh-keygen` writes it"
    if cipher != b"none":
        return "the private key has a passphrase, which nobody is there to type"
    return None


def _cipher_of(key: str) -> bytes | None:
    """What a private key is encrypted with, `none` in the clear; None for what is no key."""
    if len(key) > KEY_MAX or not PRIVATE_KEY.fullmatch(key):
        return None
    if not key.startswith("-----BEGIN OPENSSH"):
        return b"pem" if key.startswith("-----BEGIN ENCRYPTED") else b"none"
    try:
        whole = base64.b64decode("".join(key.splitlines()[1:-1]), validate=True)
    except binascii.Error:
        return None
    return _text(whole.removeprefix(OPENSSH_MAGIC)) if whole.startswith(OPENSSH_MAGIC) else None


def _text(data: bytes) -> bytes:
    """The first string of SSH's wire format; empty where there is none."""
    if len(data) < 4:
        return b""
    (length,) = struct.unpack(">I", data[:4])
    return data[4 : 4 + length]

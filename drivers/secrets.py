"""Secrets at rest: sealed with one key of this installation, opened only on their way to a device.

The key file is what makes a copy of the database harmless, so it is kept apart from it: readable
by its owner only, and never in a message.

Races  Two processes that start at once use one key: it is written aside and linked to its name,
       which fails when the name exists, so nobody reads half a key or replaces a whole one.
"""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from domain.errors import Invalid

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretBox:
    """Seals and opens small sets of named secrets."""

    def __init__(self, key: bytes) -> None:
        """`key` as Fernet makes it; Invalid SECRET_KEY_MALFORMED for anything else."""
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise Invalid(
                "SECRET_KEY_MALFORMED",
                "the secret key is not 32 bytes in URL-safe base64",
                next_step="restore the key file from its backup",
            ) from None

    @classmethod
    def open_or_create(cls, path: Path) -> "SecretBox":
        """The box of a key file, which is made when there is none; repeatable.

        Invalid SECRET_KEY_EXPOSED when others may read the file.
        """
        try:
            return cls._of_file(path)
        except FileNotFoundError:
            _write_new(path, Fernet.generate_key())
            return cls._of_file(path)

    def seal(self, values: Mapping[str, str]) -> bytes:
        """The values as one encrypted token; two seals of the same values differ."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode())

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        """What was sealed; Invalid SECRET_KEY_MISMATCH when sealed with another key, or damaged."""
        try:
            text = self._fernet.decrypt(sealed)
        except InvalidToken:
            raise Invalid(
                "SECRET_KEY_MISMATCH",
                "the stored secret was sealed with another key, or is damaged",
                next_step="restore the key file that belongs to this database, or enter the secret"
                " again",
            ) from None
        return {name: SecretStr(value) for name, value in json.loads(text).items()}

    @classmethod
    def _of_file(cls, path: Path) -> "SecretBox":
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & OTHERS:
                raise Invalid(
                    "SECRET_KEY_EXPOSED",
                    f"the key file {path} has mode {mode:04o}, others may use it",
                    next_step=f"chmod 600 {path}",
                )
            return cls(file.read().strip())


def _write_new(path: Path, key: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # Another process was first: its key counts.
            os.link(aside, path)
        _sync_folder(path.parent)
    finally:
        aside.unlink()


def _sync_folder(folder: Path) -> None:
    # A key that a power cut takes away after secrets were sealed with it loses them all.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

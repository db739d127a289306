"""Who asks: the bearer of the embedded engine's own token, or of one that was given to a person.

Both are kept in files that only their owner reads; see `people` for the second.
"""

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from fastapi import Request

from api.people import ADMIN, People
from domain.errors import Denied, EngineError


class NotAuthenticated(EngineError):
    """No valid token came with the request."""

    status = 401


def token_file(var: Path) -> Path:
    """Where the token of an embedded engine is kept."""
    return var / "token"


def read_or_create_token(path: Path) -> str:
    """The token in the file, made there (mode 0600) when there is none; repeatable.

    Denied when others can read the file, or when it holds no token.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_new(path, f"holdfast_{secrets.token_urlsafe(32)}")
    with path.open() as file:
        exposed = os.fstat(file.fileno()).st_mode & 0o077
        token = file.read().strip()
    if exposed:
        raise Denied(
            "TOKEN_EXPOSED",
            f"{path} can be read by others",
            next_step=f"chmod 600 {path}, or remove it to get a new token",
        )
    if not token:
        raise Denied(
            "TOKEN_EMPTY", f"{path} holds no token", next_step="remove it to get a new one"
        )
    return token


def _write_new(path: Path, token: str) -> None:
    # Written aside and linked to its name, which fails when the name exists: of processes that
    # start together one makes the token, and nobody ever reads half of it.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()


class TokenAuth:
    """Lets requests with a token in: the engine's own as `admin`, a person's under the name."""

    def __init__(self, token: str, people: People | None = None) -> None:
        self._token = token.encode()
        self._people = people

    async def __call__(self, request: Request) -> str:
        """The principal of a request; NotAuthenticated without a token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer" and given and (who := self._holder(given)):
            return who
        raise NotAuthenticated(
            "TOKEN_MISSING" if not given else "TOKEN_WRONG",
            "this request carries no valid bearer token",
            next_step="send `Authorization: Bearer …`; `holdfast up` prints where the token is, "
            "and `holdfast token add` gives one to a person",
        )

    def _holder(self, given: str) -> str | None:
        if hmac.compare_digest(given.encode(), self._token):
            return ADMIN
        return None if self._people is None else self._people.holder(given)

"""Who asks: one bearer token for the embedded engine, kept in a file that only its owner reads."""

import hmac
import os
import secrets
from pathlib import Path

from fastapi import Request

from domain.errors import Denied, EngineError


class NotAuthenticated(EngineError):
    """No valid token came with the request."""

    status = 401


def token_file(var: Path) -> Path:
    """Where the token of an embedded engine is kept."""
    return var / "token"


def read_or_create_token(path: Path) -> str:
    """The token in the file, made there (mode 0600) when there is none; repeatable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = f"holdfast_{secrets.token_urlsafe(32)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise Denied(
                "TOKEN_EXPOSED",
                f"{path} can be read by others",
                next_step=f"chmod 600 {path}, or remove it to get a new token",
            ) from None
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh + "\n")
    return fresh


class TokenAuth:
    """Lets requests with the right token in, as `admin`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def __call__(self, request: Request) -> str:
        """The principal of a request; NotAuthenticated without the token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return "admin"
        raise NotAuthenticated(
            "TOKEN_MISSING" if not given else "TOKEN_WRONG",
            "this request carries no valid bearer token",
            next_step="send `Authorization: Bearer …`; `holdfast up` prints where the token is",
        )

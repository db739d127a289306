"""Where the engine is and which token opens it.

Address  --url, HOLDFAST_URL, the file `api.url` in the engine's folder (HOLDFAST_VAR or ./var), or
         http://127.0.0.1:8420.
Token    HOLDFAST_TOKEN, the file named by HOLDFAST_TOKEN_FILE, or the file `token` in the engine's
         folder. The last one belongs to the engine of this machine and is sent nowhere else. A
         token is never an argument: arguments can be read by every user of the machine.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cli.failures import Exit, failure

DEFAULT_URL = "http://127.0.0.1:8420"
NO_TOKEN = (
    "set HOLDFAST_TOKEN or HOLDFAST_TOKEN_FILE, or name the engine's folder in HOLDFAST_VAR: "
    "`holdfast up` keeps its token there"
)


@dataclass(frozen=True)
class Endpoint:
    """An engine's address and the token for it; the token does not show in a repr."""

    url: str
    local: bool
    _token: str

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, token={'set' if self._token else 'none'})"

    def headers(self) -> dict[str, str]:
        """What opens the engine; empty without a token."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def find_endpoint(given: str | None, env: Mapping[str, str]) -> Endpoint:
    """The engine to talk to; Failure for an address or a token file that cannot be used."""
    var = Path(env.get("HOLDFAST_VAR") or "var")
    url = given or env.get("HOLDFAST_URL") or _first_line(var / "api.url") or DEFAULT_URL
    local = _is_local(url)
    return Endpoint(url.rstrip("/"), local, _find_token(env, var, local=local))


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    try:
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https") or not host or parts.username:
        raise failure(
            Exit.USAGE,
            "URL_INVALID",
            "the engine's address is not a plain http or https URL",
            next_step=f"give one like {DEFAULT_URL}",
        )
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _find_token(env: Mapping[str, str], var: Path, *, local: bool) -> str:
    if token := env.get("HOLDFAST_TOKEN", "").strip():
        return _usable(token, "HOLDFAST_TOKEN")
    if named := env.get("HOLDFAST_TOKEN_FILE"):
        try:
            return _usable(Path(named).read_text().strip(), named)
        except (OSError, UnicodeDecodeError) as error:
            raise failure(
                Exit.NOT_LOGGED_IN,
                "TOKEN_FILE_UNREADABLE",
                f"{named} of HOLDFAST_TOKEN_FILE cannot be read: {error}",
                next_step="name a file that you can read",
            ) from None
    return _token_of_this_machine(var / "token") if local else ""


def _token_of_this_machine(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise failure(
                Exit.NOT_LOGGED_IN,
                "TOKEN_EXPOSED",
                f"{path} can be read by others",
                next_step=f"chmod 600 {path}",
            )
        return _usable(path.read_text().strip(), str(path))
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise failure(
            Exit.NOT_LOGGED_IN,
            "TOKEN_FILE_UNREADABLE",
            f"{path} cannot be read: {error}",
            next_step="run this as the user who runs the engine, or set HOLDFAST_TOKEN",
        ) from None


def _usable(token: str, where: str) -> str:
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise failure(
            Exit.NOT_LOGGED_IN,
            "TOKEN_MALFORMED",
            f"{where} does not hold a token: one line of visible ASCII characters is expected",
        )
    return token


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""

"""The REST API as this program uses it: requests, retries, names, and problems as `Failure`.

A request whose answer was lost on the way (connection reset) is sent again; an action carries the
same idempotency key each time, so that the engine accepts it once. An engine that refuses the very
first connection is reported at once.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from cli.endpoint import NO_TOKEN, Endpoint
from cli.failures import BY_STATUS, Exit, Failure, Json, failure
from cli.values import as_id

TIMEOUT_S = 30.0
RETRY_PAUSES_S = (0.2, 0.5, 1.0)
"""Pauses before a lost request is sent again. More or longer: a dead engine is reported later."""

CLOCK_DIFFERS = timedelta(seconds=2)
"""The Date header has whole seconds, so a smaller difference of clocks cannot be seen."""

PATHS = {"fence device": "/fence-devices", "affinity group": "/affinity-groups"}
"""Where a noun's objects are, if not at its plural; the command that lists them is its first word.
"""

PAGE = 500
"""Items asked for at once; the most that the API gives."""

LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError)
REFUSED = (httpx2.ConnectError, httpx2.ConnectTimeout)


def pause(seconds: float) -> None:
    """Wait; an interrupt ends it."""
    threading.Event().wait(seconds)


class Api:
    """A connection to one engine."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], None] = pause,
    ) -> None:
        self._endpoint = endpoint
        self._pause = pause
        self._skew = timedelta()
        self._http = httpx2.Client(
            base_url=f"{endpoint.url}/api/v1",
            headers=endpoint.headers() | {"Accept": "application/json"},
            timeout=httpx2.Timeout(TIMEOUT_S, connect=5.0),
            transport=transport,
            # A proxy of the environment knows nothing of this machine's own addresses.
            trust_env=not endpoint.local,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def now(self) -> datetime:
        """The engine's clock, as far as its answers tell."""
        return datetime.now(UTC) + self._skew

    def get(self, path: str, **params: Any) -> Any:
        """Read; Failure when the engine says no or says nothing."""
        given = {key: value for key, value in params.items() if value is not None}
        return self._call("GET", path, params=given)

    def all(self, path: str, **params: Any) -> list[Json]:
        """Every item of a list, page by page."""
        found: list[Json] = []
        cursor: str | None = None
        while True:
            page = self.get(path, **params, limit=PAGE, cursor=cursor)
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def post(self, path: str, body: Json, headers: dict[str, str]) -> Any:
        """Ask for an action; `headers` carry the idempotency key that makes a repeat safe."""
        return self.ask("POST", path, body, headers)

    def ask(self, method: str, path: str, body: Json | None, headers: dict[str, str]) -> Any:
        """The same by any method; a removal has no body."""
        raw = {key.encode(): value.encode() for key, value in headers.items()}
        return self._call(method, path, headers=raw, **({} if body is None else {"json": body}))

    def find(self, noun: str, wanted: str) -> Json:
        """One object by name or id; Failure (exit code 3) when there is none."""
        wanted_id, path = as_id(wanted), PATHS.get(noun, f"/{noun}s")
        if wanted_id is not None:
            item: Json = self.get(f"{path}/{wanted_id}")
            return item
        found = self.all(path, name=wanted)
        if not found:
            word = noun.replace(" ", "_")
            raise failure(
                Exit.NOT_FOUND,
                f"{word.upper()}_NOT_FOUND",
                f"there is no {noun} {wanted}",
                next_step=f"holdfast {noun.split()[0]} list",
                **{word: wanted},
            )
        first: Json = found[0]
        return first

    def _call(self, method: str, path: str, **given: Any) -> Any:
        response = self._send(method, path, given)
        self._note_clock(response)
        if response.is_success:
            return self._read(response)
        raise self._refusal(response)

    def _send(self, method: str, path: str, given: dict[str, Any]) -> httpx2.Response:
        lost: httpx2.TransportError | None = None
        for wait_s in (*RETRY_PAUSES_S, None):
            try:
                return self._http.request(method, path, **given)
            except LOST as error:
                refused = isinstance(error, REFUSED)
                lost = lost or error
                if wait_s is None or (refused and lost is error):
                    raise self._unreachable(error, sent=lost is not error or not refused) from error
                self._pause(wait_s)
            except httpx2.TransportError as error:
                never_sent = lost is None and isinstance(error, REFUSED)
                raise self._unreachable(error, sent=not never_sent) from error
        raise AssertionError("the last try either returns or raises")

    def _read(self, response: httpx2.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise failure(
                Exit.FAILED,
                "ANSWER_NOT_UNDERSTOOD",
                f"{self._endpoint.url} answered {response.status_code} without JSON",
                next_step="check that the address is an engine's, and not a proxy's",
            ) from None

    def _refusal(self, response: httpx2.Response) -> Failure:
        code = BY_STATUS.get(response.status_code, Exit.FAILED)
        document: Any = None
        if "json" in response.headers.get("Content-Type", ""):
            document = self._read(response)
        if not isinstance(document, dict) or "code" not in document:
            return failure(
                code,
                f"HTTP_{response.status_code}",
                f"{self._endpoint.url} answered {response.status_code} without saying why",
                next_step="check that the address is an engine's, and not a proxy's",
            )
        return Failure(code, document, NO_TOKEN if code is Exit.NOT_LOGGED_IN else "")

    def _unreachable(self, error: Exception, *, sent: bool) -> Failure:
        told = str(error) or type(error).__name__
        found = failure(
            Exit.UNREACHABLE,
            "ENGINE_UNREACHABLE",
            f"no answer from the engine at {self._endpoint.url}: {told}",
            next_step="start it with `holdfast up`, or name it with --url or HOLDFAST_URL",
            url=self._endpoint.url,
        )
        found.document["context"]["request_may_have_arrived"] = sent
        return found

    def _note_clock(self, response: httpx2.Response) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return
        if theirs.tzinfo is None:
            return
        skew = theirs - datetime.now(UTC)
        self._skew = skew if abs(skew) > CLOCK_DIFFERS else timedelta()

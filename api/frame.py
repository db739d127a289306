"""What surrounds every request: its correlation id and the limit on its body.

The limit holds for bodies of unknown length, too: they are counted while they are read.
"""

import re

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import BODY_BYTES_MAX, problem_response, too_large
from store.ids import new_id

CORRELATION = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Frame:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get("Correlation-Id", "")
        own = CORRELATION.fullmatch(given) is None
        request.state.correlation_id = str(new_id()) if own else given
        correlated = _correlated(send, request.state.correlation_id)
        length = request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > BODY_BYTES_MAX:
            answer = problem_response(request, too_large())
            await answer(scope, receive, correlated)
            return
        await self._app(scope, _limited(receive), correlated)


def _correlated(send: Send, correlation_id: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            header = (b"correlation-id", correlation_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return sending


def _limited(receive: Receive) -> Receive:
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > BODY_BYTES_MAX:
            raise HTTPException(413)
        return message

    return receiving

"""What every route needs: the backend, who asks, and the context of an action."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from opentelemetry.propagate import inject

from domain.context import ActionContext
from domain.errors import Invalid
from engine.actions.base import Params
from engine.backend import Backend, Receipt
from engine.queries.operations import GetOperation
from engine.views import OperationView

KEY = re.compile(r'^"?([\x21\x23-\x7e]{1,128})"?$')


async def get_backend(request: Request) -> Backend:
    """The engine behind this app."""
    backend: Backend = request.app.state.backend
    return backend


async def get_principal(request: Request) -> str:
    """Who asks."""
    principal: str = await request.app.state.auth(request)
    return principal


BackendDep = Annotated[Backend, Depends(get_backend)]
PrincipalDep = Annotated[str, Depends(get_principal)]


async def get_context(
    request: Request,
    principal: PrincipalDep,
    reason: Annotated[str, Header(alias="X-Reason", max_length=1000)] = "",
) -> ActionContext:
    """The context of an action asked for by a person or program."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return ActionContext(
        principal=principal,
        correlation_id=request.state.correlation_id,
        reason=_text(reason),
        traceparent=carrier.get("traceparent"),
    )


def _text(header: str) -> str:
    """A header's text as UTF-8, which ASGI hands over as Latin-1."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise Invalid(
            "HEADER_NOT_UTF8", "X-Reason is not UTF-8 text", next_step="send it as UTF-8"
        ) from None


async def get_key(
    key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=130)] = None,
) -> str | None:
    """The idempotency key of a request, with or without the quotes of a structured field."""
    if key is None:
        return None
    match = KEY.match(key)
    if match is None:
        raise Invalid(
            "IDEMPOTENCY_KEY_INVALID",
            "an idempotency key is 1 to 128 visible ASCII characters",
            next_step="a UUID will do",
        )
    return match.group(1)


class Door:
    """Runs one action for one request and writes the answer's headers."""

    def __init__(
        self,
        backend: BackendDep,
        context: Annotated[ActionContext, Depends(get_context)],
        key: Annotated[str | None, Depends(get_key)],
        response: Response,
    ) -> None:
        self._backend = backend
        self._context = context
        self._key = key
        self._response = response

    async def run(self, params: Params) -> OperationView:
        """Accept the action; the operation as it stands right after."""
        receipt: Receipt = await self._backend.run_action(params, self._context, self._key)
        headers = self._response.headers
        headers["Location"] = f"/api/v1/operations/{receipt.operation_id}"
        if receipt.replayed:
            headers["Idempotency-Replayed"] = "true"
        view: OperationView = await self._backend.run_query(
            GetOperation(operation_id=receipt.operation_id)
        )
        return view


DoorDep = Annotated[Door, Depends()]

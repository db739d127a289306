"""What every route needs: the backend, who asks, and the context of an action."""

import re
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry.propagate import inject

from domain.context import ActionContext, PriorityClass
from domain.errors import Invalid
from engine.acceptance import LOCK_WAIT_MAX_S
from engine.actions.base import Params
from engine.backend import Backend, Options, Receipt
from engine.queries.operations import GetOperation
from engine.views import DryRunView, OperationView

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


def get_options(
    dry_run: Annotated[bool, Query(description="judge it, and change nothing")] = False,
    lock_wait_s: Annotated[float, Query(ge=0, le=LOCK_WAIT_MAX_S)] = 0.0,
    priority: Annotated[PriorityClass | None, Query(description="less urgent than usual")] = None,
) -> Options:
    """How the caller wants the action to be taken."""
    return Options(dry_run=dry_run, lock_wait_s=lock_wait_s, priority=priority)


class Door:
    """Runs one action for one request and writes the answer's headers."""

    def __init__(
        self,
        backend: BackendDep,
        context: Annotated[ActionContext, Depends(get_context)],
        key: Annotated[str | None, Depends(get_key)],
        options: Annotated[Options, Depends(get_options)],
        response: Response,
    ) -> None:
        self._backend = backend
        self._context = context
        self._key = key
        self._options = options
        self._response = response

    async def run(self, params: Params) -> OperationView | Response:
        """Accept the action and give its operation as it stands right after, or only judge it."""
        if self._options.dry_run:
            seen = await self._backend.dry_run(params, self._context, self._options)
            return JSONResponse(seen.model_dump(mode="json"))
        receipt = await self._backend.run_action(params, self._context, self._key, self._options)
        return await self.show(receipt)

    async def show(self, receipt: Receipt) -> OperationView:
        """The operation of a receipt, and where to find it."""
        headers = self._response.headers
        headers["Location"] = f"/api/v1/operations/{receipt.operation_id}"
        if receipt.replayed:
            headers["Idempotency-Replayed"] = "true"
        view: OperationView = await self._backend.run_query(
            GetOperation(operation_id=receipt.operation_id)
        )
        return view

    @property
    def backend(self) -> Backend:
        """The engine, for what is more than one action."""
        return self._backend

    @property
    def terms(self) -> tuple[ActionContext, str | None, Options]:
        """Who asks why, under which key, and how."""
        return self._context, self._key, self._options


DoorDep = Annotated[Door, Depends()]
Answer = OperationView | Response
ACTION: dict[str, Any] = {
    "status_code": 202,
    "response_model": OperationView,
    "responses": {200: {"model": DryRunView, "description": "The judgement of a dry run"}},
}
"""What every route that runs an action declares; its function returns an `Answer`."""

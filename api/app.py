"""The ASGI app: routes under /api/v1, correlation ids, problem documents, liveness."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from opentelemetry import trace

from api import problems
from api.routes import inventory, operations
from engine.backend import Backend
from engine.queries.inventory import ListClusters
from store.ids import new_id

VERSION = "0.1.0"
CORRELATION = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")
BODY_BYTES_MAX = 1024 * 1024

tracer = trace.get_tracer("holdfast.api")


def create_app(backend: Backend, auth: Callable[[Request], Awaitable[str]]) -> FastAPI:
    """The app over a backend; `auth` gives the principal of a request or raises."""
    app = FastAPI(
        title="Holdfast",
        version=VERSION,
        summary="Durable operations for KVM/libvirt clusters",
        docs_url="/api/v1/docs",
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.backend = backend
    app.state.auth = auth
    problems.install(app)
    app.include_router(inventory.router, prefix="/api/v1")
    app.include_router(operations.router, prefix="/api/v1")
    app.middleware("http")(_correlated)
    app.add_api_route("/livez", _livez, methods=["GET"], tags=["health"])
    app.add_api_route("/readyz", _readyz, methods=["GET"], tags=["health"])
    return app


async def _correlated(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    given = request.headers.get("Correlation-Id", "")
    request.state.correlation_id = given if CORRELATION.match(given) else str(new_id())
    length = request.headers.get("Content-Length", "0")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        document = problems.ProblemDocument(
            title="Too large",
            status=413,
            code="BODY_TOO_LARGE",
            detail=f"the body has {length} bytes, at most {BODY_BYTES_MAX} are read",
        )
        return problems.problem_response(request, document)
    with tracer.start_as_current_span(f"{request.method} {request.url.path}"):
        response = await call_next(request)
    response.headers["Correlation-Id"] = request.state.correlation_id
    return response


async def _livez() -> dict[str, str]:
    """The event loop turns; nothing else is promised."""
    return {"status": "ok"}


async def _readyz(request: Request) -> dict[str, Any]:
    """The database answers too."""
    backend: Backend = request.app.state.backend
    await backend.run_query(ListClusters())
    return {"status": "ok"}

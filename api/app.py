"""The ASGI app: routes under /api/v1, problem documents, its own description, liveness."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi

from api import docs, problems
from api.frame import Frame
from api.routes import (
    affinity,
    approvals,
    batches,
    clusters,
    events,
    fence_devices,
    hosts,
    incidents,
    networks,
    operations,
    public,
    vms,
)
from domain.version import VERSION
from engine.backend import Backend

ROUTES = (
    clusters,
    networks,
    hosts,
    fence_devices,
    vms,
    affinity,
    batches,
    operations,
    incidents,
    approvals,
    events,
    public,
)


def create_app(backend: Backend, auth: Callable[[Request], Awaitable[str]]) -> FastAPI:
    """The app over a backend; `auth` gives the principal of a request or raises."""
    app = FastAPI(
        title="Holdfast",
        version=VERSION,
        summary="Durable operations for KVM/libvirt clusters",
        redirect_slashes=False,  # an address has one spelling; any other is not found
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.backend = backend
    app.state.auth = auth
    problems.install(app)
    docs.install(app)
    for routes in ROUTES:
        app.include_router(routes.router, prefix="/api/v1")
    app.add_middleware(Frame)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    app.add_api_route("/livez", _livez, methods=["GET"], tags=["health"])
    app.add_api_route(
        "/readyz", public.ready, methods=["GET"], tags=["health"], responses=public.ANSWERS
    )
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: problems under their own media type, and the token that is needed."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        scheme = {"type": "http", "scheme": "bearer"}
        document.setdefault("components", {})["securitySchemes"] = {"token": scheme}
        for path, item in document["paths"].items():
            for operation in item.values():
                if path.startswith("/api/") and "public" not in operation["tags"]:
                    operation["security"] = [{"token": []}]
                for answer in operation["responses"].values():
                    content = answer.get("content", {})
                    if problems.MEDIA_TYPE in content:
                        content[problems.MEDIA_TYPE] = content.pop("application/json")
        app.openapi_schema = document
    return app.openapi_schema


async def _livez() -> dict[str, str]:
    """The event loop turns; nothing else is promised."""
    return {"status": "ok"}

"""The app in process over a real backend and database, with what lies behind it replaced."""

from ast import literal_eval
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx2
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.routing import Mount

from api.app import create_app
from api.auth import TokenAuth
from api.people import People
from domain.errors import Invalid
from engine.backend import Backend
from engine.registry import all_actions, all_queries
from engine.roles import Roles
from store.database import Database
from tests.store.world import World

TOKEN = "holdfast_test-token"
PROBLEM = "application/problem+json"
ASSET = "/api/v1/docs/assets/swagger-ui.css"
TOLD = ("health", "version", "capabilities", "auth-methods", "timing-profiles")
PUBLIC = {"/livez", "/readyz", "/api/v1/docs", ASSET, "/api/v1/openapi.json"} | {
    f"/api/v1/{word}" for word in TOLD
}

Json = dict[str, Any]


class Sealer:
    """Seals by turning letters: good enough to see whether anybody stores them unsealed."""

    def seal(self, secrets: Mapping[str, str]) -> bytes:
        return repr(sorted(secrets.items()))[::-1].encode()

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        pairs = literal_eval(sealed[::-1].decode())
        return {key: SecretStr(value) for key, value in pairs}


class Agents:
    """Knows two fence agents."""

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        if agent not in ("fence_ipmilan", "fence_redfish"):
            raise Invalid("FENCE_AGENT_UNKNOWN", f"there is no agent {agent}", agent=agent)


class Deliverer:
    """Notes which workflows were to be started."""

    def __init__(self) -> None:
        self.delivered: list[UUID] = []

    async def deliver(self, operation_id: UUID) -> None:
        self.delivered.append(operation_id)


class Desk:
    """A client with the token, the app, and the world behind them."""

    def __init__(self, database: Database, people: People | None = None) -> None:
        self.database = database
        self.world = World(database)
        self.deliverer = Deliverer()
        actions = all_actions(Sealer(), Agents())
        self.backend = Backend(
            database, actions, all_queries(actions), self.deliverer, roles=Roles(people)
        )
        self.app: FastAPI = create_app(self.backend, TokenAuth(TOKEN, people))
        self.client = client_of(self.app, TOKEN)

    async def get(self, path: str, **kwargs: Any) -> httpx2.Response:
        """GET below /api/v1."""
        return await self.client.get(f"/api/v1{path}", **kwargs)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """POST below /api/v1; keywords become headers, with - for _."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(f"/api/v1{path}", json=body, headers=named)

    def operations(self) -> list[tuple[str, str]]:
        """Method and path of every operation the app serves, whoever included it."""
        return sorted(set(_walk(self.app.routes, "")))


def client_of(app: FastAPI, token: str | None) -> httpx2.AsyncClient:
    """A client that speaks to the app in process; a defect is an answer, not an exception."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://engine", headers=headers)


def _walk(routes: Any, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            found += _walk(inner.routes, prefix + route.include_context.prefix)
            continue
        if isinstance(route, Mount):
            # A folder of files: one of them stands for all.
            found.append(("GET", f"{prefix}{route.path}/swagger-ui.css"))
            continue
        found += [(method, prefix + route.path) for method in route.methods if method != "HEAD"]
    return found


@asynccontextmanager
async def open_desk(database: Database) -> AsyncIterator[Desk]:
    """A desk for a block; the database stays the caller's."""
    desk = Desk(database)
    async with desk.client:
        yield desk
        await desk.backend.close()


def check_problem(answer: httpx2.Response, status: int, code: str | None = None) -> Json:
    """The problem document of an answer, after what is true of all of them was checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document: Json = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["correlation_id"] == answer.headers["Correlation-Id"]
    assert document["instance"] == answer.request.url.path
    if code is not None:
        assert document["code"] == code
    return document

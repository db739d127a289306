"""What needs no token: few questions, none about the inventory, each address at a limited rate."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from api.deps import BackendDep
from api.problems import RESPONSES
from domain.errors import Unavailable
from engine.queries.public import (
    AuthMethods,
    Capabilities,
    Health,
    TimingProfiles,
    Version,
)
from engine.views_public import (
    AuthMethodView,
    CapabilitiesView,
    HealthView,
    TimingProfileView,
    VersionView,
)

ANSWERS: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (429, 503)}
router = APIRouter(tags=["public"], responses=ANSWERS)


def get_source(request: Request) -> str:
    """The address that asks; a proxy's own where none of its headers is trusted."""
    return "unknown" if request.client is None else request.client.host


SourceDep = Annotated[str, Depends(get_source)]


@router.get("/health")
async def health(backend: BackendDep, source: SourceDep) -> HealthView:
    """How the engine does; 503 when its database does not answer."""
    view: HealthView = await backend.run_public_query(Health(), source)
    return view


@router.get("/version")
async def version(backend: BackendDep, source: SourceDep) -> VersionView:
    """Which version this is."""
    view: VersionView = await backend.run_public_query(Version(), source)
    return view


@router.get("/capabilities")
async def capabilities(backend: BackendDep, source: SourceDep) -> CapabilitiesView:
    """What this engine can do."""
    view: CapabilitiesView = await backend.run_public_query(Capabilities(), source)
    return view


@router.get("/auth-methods")
async def auth_methods(backend: BackendDep, source: SourceDep) -> list[AuthMethodView]:
    """How one may say who one is."""
    return list(await backend.run_public_query(AuthMethods(), source))


@router.get("/timing-profiles")
async def timing_profiles(backend: BackendDep, source: SourceDep) -> list[TimingProfileView]:
    """The timing profiles that a cluster can have, with the recovery times they predict."""
    return list(await backend.run_public_query(TimingProfiles(), source))


async def ready(backend: BackendDep, source: SourceDep) -> dict[str, str]:
    """The database answers and has the tables that this engine needs."""
    view: HealthView = await backend.run_public_query(Health(), source)
    if (view.revision or "") < (view.revision_expected or ""):
        raise Unavailable(
            "DATABASE_REVISION",
            f"the database is at revision {view.revision or 'none'}, this engine needs"
            f" {view.revision_expected}",
            next_step="back it up, then run `holdfast db upgrade`",
        )
    return {"status": "ok"}

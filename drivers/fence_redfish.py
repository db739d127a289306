"""Which machine a Redfish controller manages: the UUID of the system that its agent would cut.

`fence_redfish` does not tell it, so it is read here, along the agent's own way: the system that
`systems_uri` names, or else the last of the collection. Boards disagree on the order of the first
three parts of a UUID, as they do over IPMI, so both are taken.

Invariants  Name and password go to the address that the device is configured with and to no other,
            whatever its answers refer to.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx2

SPEAKS_REDFISH = frozenset({"fence_redfish"})
ROOT = "/redfish/v1"
TRUE = frozenset({"1", "true", "yes", "on"})
HEADERS = {"accept": "application/json", "OData-Version": "4.0"}
STEPS_MAX = 3
"""Redirects followed at each address; boards send one, from `/redfish/v1` to `/redfish/v1/`."""


def speaks_redfish(agent: str, options: Mapping[str, str]) -> bool:
    """Whether this device can be asked."""
    return agent in SPEAKS_REDFISH and bool(_base_url(_plain(options)))


async def machines(
    options: Mapping[str, str],
    secrets: Mapping[str, str],
    deadline_s: float,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> tuple[UUID, ...]:
    """The UUID that the controller tells, in each order; empty when it tells none, or not in time.

    Reads only, and raises for nothing that the device does.
    """
    told = _plain(options)
    account = (
        told.get("username", told.get("login", "")),
        secrets.get("password", secrets.get("passwd", "")),
    )
    client = httpx2.AsyncClient(
        base_url=_base_url(told),
        auth=account,
        verify=told.get("ssl_insecure", "0").lower() not in TRUE,
        headers=HEADERS,
        timeout=deadline_s,
        trust_env=False,
        transport=transport,
    )
    try:
        async with client:
            path = told.get("systems_uri") or await _last_system(client, told)
            return _both_orders((await _read(client, path))["UUID"])
    except (httpx2.HTTPError, httpx2.InvalidURL, LookupError, TypeError, ValueError):
        return ()


async def _last_system(client: httpx2.AsyncClient, told: Mapping[str, str]) -> str:
    root = await _read(client, told.get("redfish_uri", ROOT))
    systems = await _read(client, root["Systems"]["@odata.id"])
    return str(systems["Members"][-1]["@odata.id"])


async def _read(client: httpx2.AsyncClient, path: str) -> Any:
    """One resource; ValueError when it lies elsewhere, or is no answer."""
    for _step in range(1 + STEPS_MAX):
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError("it refers to another machine")
        answer = await client.get(path)
        if not answer.has_redirect_location:
            return answer.raise_for_status().json()
        target = client.base_url.join(answer.headers["location"])
        if target.netloc != client.base_url.netloc or target.scheme != "https":
            raise ValueError("it refers to another machine")
        path = target.raw_path.decode()
    raise ValueError("it refers to itself")


def _both_orders(said: str) -> tuple[UUID, ...]:
    uuid = UUID(said)
    if len(set(uuid.bytes)) == 1:
        return ()  # zeros or ones: a board that was never told
    return (uuid, UUID(bytes_le=uuid.bytes))


def _base_url(told: Mapping[str, str]) -> str:
    """Where it listens, always over TLS, as its agent reaches it; empty when nothing says so."""
    address = told.get("ip", told.get("ipaddr", ""))
    if address.count(":") > 1:
        address = f"[{address.strip('[]')}]"
    elif ":" in address:  # the agent takes the port from here, too
        return f"https://{address}"
    return f"https://{address}:{told.get('ipport', '443')}" if address else ""


def _plain(options: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in options.items()}

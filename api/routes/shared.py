"""What the routes of several objects share: empty bodies, partial changes, and versions.

The ETag of one object is the version of its configuration, in quotes; what is only observed of it
(state, readings, where it runs) does not raise it. A change or removal that names it in `If-Match`
is refused with 412 once somebody else has changed the object; without the header it is not asked.
"""

import re
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict

from domain.base import Frozen
from domain.errors import Invalid
from engine.actions.edits import VERSION_MAX

V = TypeVar("V", bound=Frozen)
VERSION = re.compile(r'^\s*"([1-9][0-9]{0,9})"\s*$')


class Empty(BaseModel):
    """A body without fields."""

    model_config = ConfigDict(extra="forbid")


def get_version(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(alias="If-Match", max_length=128, description='the ETag it was read with: `"3"`'),
    ] = None,
) -> int | None:
    """The version that a request expects; None: any will do."""
    lines = len(request.headers.getlist("If-Match"))
    if if_match is None or (lines == 1 and if_match.strip() == "*"):
        return None
    match = VERSION.match(if_match)
    if lines > 1 or match is None or int(match.group(1)) > VERSION_MAX:
        raise Invalid(
            "IF_MATCH_INVALID",
            'If-Match is the ETag of one answer: its version in quotes, such as "3"',
            next_step="read the object, and send the ETag that came with it",
        )
    return int(match.group(1))


VersionDep = Annotated[int | None, Depends(get_version)]


def tagged(response: Response, view: V) -> V:
    """One object, with its version as the answer's ETag."""
    response.headers["ETag"] = f'"{view.version}"'  # type: ignore[attr-defined]
    return view


def said(body: Frozen) -> dict[str, Any]:
    """The fields that a partial change names; the others stay as they are."""
    return {name: getattr(body, name) for name in sorted(body.model_fields_set)}

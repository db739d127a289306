"""What several nouns need: the one cluster there is, and ids that must be ids."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit, Json, failure
from cli.values import as_id

if TYPE_CHECKING:
    from cli.client import Api
    from cli.session import Act

VersionOption = Annotated[
    int | None,
    typer.Option(
        "--version",
        min=1,
        max=2**31 - 1,
        help="Only if it is still at this version; else at the one that is found now.",
    ),
]


def cluster_id(api: "Api", named: str | None) -> str:
    """The id of the named cluster, or of the only one there is."""
    if named is not None:
        return str(api.find("cluster", named)["id"])
    found = api.all("/clusters")
    if len(found) == 1:
        return str(found[0]["id"])
    names = ", ".join(item["name"] for item in found)
    raise failure(
        Exit.USAGE,
        "CLUSTER_NOT_CHOSEN",
        f"there are {len(found)} clusters: {names}" if found else "there is no cluster yet",
        next_step="name one with --cluster" if found else "holdfast cluster create NAME",
    )


def change(
    act: "Act",
    path: str,
    found: Json,
    wanted: Json,
    version: int | None,
    emptied: Iterable[str] = (),
) -> None:
    """Change what is wanted of the object that was found; Failure when nothing is.

    `emptied` names the fields that are to have no value any more.
    """
    changes = {field: value for field, value in wanted.items() if value is not None}
    changes |= dict.fromkeys(emptied)
    if not changes:
        raise failure(
            Exit.USAGE,
            "NOTHING_TO_CHANGE",
            f"nothing is named that {found['name']} should have",
            next_step="name it with an option; --help lists them",
        )
    act.edit(f"{path}/{found['id']}", changes, version or found["version"])


def operation_id(text: str) -> str:
    """The id in the API's spelling; Failure (exit code 2) for a text that is none."""
    known = as_id(text)
    if known is None:
        raise failure(
            Exit.USAGE,
            "ID_INVALID",
            f"{text} is not the id of an operation",
            next_step="holdfast op list",
        )
    return known

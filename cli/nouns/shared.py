"""What several nouns need: the one cluster there is, and ids that must be ids."""

from typing import TYPE_CHECKING

from cli.failures import Exit, failure
from cli.values import as_id

if TYPE_CHECKING:
    from cli.client import Api


def cluster_id(api: "Api", named: str | None) -> str:
    """The id of the named cluster, or of the only one there is."""
    if named is not None:
        return str(api.find("cluster", named)["id"])
    found = api.get("/clusters")
    if len(found) == 1:
        return str(found[0]["id"])
    names = ", ".join(item["name"] for item in found)
    raise failure(
        Exit.USAGE,
        "CLUSTER_NOT_CHOSEN",
        f"there are {len(found)} clusters: {names}" if found else "there is no cluster yet",
        next_step="name one with --cluster" if found else "holdfast cluster create NAME",
    )


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

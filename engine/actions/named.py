"""What all actions on the inventory share: the refusal of a name that is taken."""

from domain.errors import Conflict, Refused
from engine.actions.base import Tx
from store import inventory


async def taken(tx: Tx, entity: str, name: str) -> tuple[Refused, ...]:
    """Conflict when there is an object of that name."""
    if await inventory.find(tx.connection, entity, name) is None:
        return ()
    word = entity.replace("_", " ")
    return (
        Conflict(
            "NAME_TAKEN",
            f"there is a {word} named {name} already",
            next_step="choose another name",
            name=name,
        ),
    )

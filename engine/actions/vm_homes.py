"""The home of a VM: the host where it is to run best."""

from uuid import UUID

from domain.errors import Conflict
from domain.failback import Failback
from engine.actions.base import Problems, Tx, existing
from store import failbacks
from store.rows import Row


async def check_home(
    tx: Tx, name: str, cluster_id: UUID, home_id: UUID | None, problems: Problems
) -> None:
    """Add a problem where a home is of another cluster; NotFound where there is no such host."""
    if home_id is None:
        return
    home = await existing(tx, "host", home_id)
    problems.unless(
        home["cluster_id"] == cluster_id,
        Conflict(
            "HOME_IN_OTHER_CLUSTER",
            f"{home['name']} is no host of the cluster of {name}, which runs in its own alone",
            next_step="choose a host of its cluster: `holdfast host list`",
            vm=name,
            host=home["name"],
        ),
    )


async def begin_anew(tx: Tx, vm: Row, said: set[str], changed: set[str]) -> bool:
    """Forget a VM's rest and failed tries once a person says anew where it belongs.

    True where that ended a rest.
    """
    if "failback" not in said and "home_id" not in changed:
        return False
    await failbacks.wake(tx.connection, vm["id"])
    return bool(vm["failback_rests"]) and vm["failback"] == Failback.AUTO

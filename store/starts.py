"""Whether a run is still to be started: asked before anything of it is put on its host."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from store.prebuilt import among, prebuilt
from store.rows import one
from store.schema import host
from store.schema_ha import vm_run


@prebuilt
def _expected(run_id: UUID, operation_id: UUID, /) -> sa.Select[Any]:
    in_service = sa.exists().where(
        host.c.id == vm_run.c.host_id,
        host.c.epoch == vm_run.c.epoch,
        among(host.c.state, [HostState.UP.value, HostState.CONNECTING.value]),
    )
    to_start = [RunState.PLACED.value, RunState.STARTING.value, RunState.RUNNING.value]
    return sa.select(vm_run.c.id).where(
        vm_run.c.id == run_id,
        vm_run.c.operation_id == operation_id,
        among(vm_run.c.state, to_start),
        in_service,
    )


async def expected(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """Whether the run is still this operation's and its host in service at the run's epoch.

    It claims nothing: the last word before `create()` is `runs.begin_start`. Also true of a run
    that runs already, as a step that is repeated finds it.
    """
    return await one(connection, _expected(run_id, operation_id)) is not None

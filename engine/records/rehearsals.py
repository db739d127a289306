"""Rows of fence devices as the steps of a rehearsal keep them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.rehearsing import RehearsalStep
from domain.errors import Refused
from domain.orders import HostRef
from domain.rehearsal import LevelBack
from engine.records.fence_checks import FenceCheckRecords
from store import rehearsals


class RehearsalRecords(FenceCheckRecords):
    """Implements the port of `activities.rehearsing`."""

    async def cut_levels(self, host: HostRef) -> tuple[int, ...]:
        """The levels that were cut and are not known to be back, in order."""
        return await self._database.read(
            lambda connection: rehearsals.cut_levels(connection, host.host_id)
        )

    async def forget(self, step: RehearsalStep) -> None:
        """Forget what an earlier rehearsal of the level has shown."""
        await self._database.write(
            lambda connection: rehearsals.forget(
                connection, step.host.host_id, step.level, step.operation_id, step.attempt
            )
        )

    async def claim_cut(self, step: RehearsalStep, devices: tuple[UUID, ...], at: datetime) -> None:
        """Note that these devices are cut from now on; Refused (`REHEARSAL_NOT_ALLOWED`)."""
        host = step.host

        async def work(connection: AsyncConnection) -> None:
            mine = (step.operation_id, step.attempt, step.level)
            if not await rehearsals.claim_cut(
                connection, host.host_id, host.epoch, *mine, devices, at
            ):
                raise _not_allowed(host)  # here, so that nothing is written of some of them

        await self._database.write(work)

    async def note_back(self, step: RehearsalStep, back: LevelBack, at: datetime) -> None:
        """Keep what the devices of a level have shown, unless this try is over."""
        mine = (step.host.host_id, back.level, step.operation_id, step.attempt)
        await self._database.write(
            lambda connection: rehearsals.note_back(connection, *mine, back.verdict, at)
        )


def _not_allowed(host: HostRef) -> Refused:
    return Refused(
        "REHEARSAL_NOT_ALLOWED",
        f"{host.name} may not be cut now: it has left maintenance or epoch {host.epoch}, a VM"
        " stands on it, the engine runs on it, its devices have changed or one manages another"
        " machine, the operation has ended or is tried anew, or the level is being brought back"
        " already",
        next_step="nothing was cut; look at the host and at `holdfast fence list`, then try again",
        host=host.name,
        epoch=host.epoch,
    )

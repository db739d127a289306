"""Rows of guests whose agents a monitor listens to."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.orders import HostRef
from engine.clock import Clock, utc_now
from store import hung_runs, inventory, plumbing
from store.database import Database
from store.ended_runs import Running
from store.ids import new_id


class HangRecords:
    """What is kept of agents. Every method is one transaction, and repeatable."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def silent(self, host: HostRef, run: Running, silent_s: float, by: str) -> bool:
        """Keep that a guest hangs, with an alarm; False when that is known, or it moved on."""

        async def work(connection: AsyncConnection) -> bool:
            since = self._clock() - timedelta(seconds=silent_s)
            if not await hung_runs.note_silent(connection, run.run_id, host.epoch, since):
                return False
            why = f"its guest agent has been silent for {silent_s:.0f} s"
            await self._tell(connection, host, run, "vm.hung", why, by)
            return True

        return await self._database.write(work)

    async def heard(self, host: HostRef, run: Running, by: str) -> None:
        """Keep that an agent answers; told where its guest was held to be hung."""

        async def work(connection: AsyncConnection) -> None:
            noted = await hung_runs.note_heard(connection, run.run_id, host.epoch)
            if noted and run.agent_silent:
                why = "its guest agent answers again"
                await self._tell(connection, host, run, "vm.answers_again", why, by)

        await self._database.write(work)

    async def _tell(
        self, connection: AsyncConnection, host: HostRef, run: Running, kind: str, why: str, by: str
    ) -> None:
        vm = await inventory.get(connection, "vm", run.vm_id)
        data = {"host": host.name, "why": why, "monitor": by}
        event = {
            "id": new_id(),
            "type": kind,
            "subject_type": "vm",
            "subject_id": run.vm_id,
            "principal": "monitor",
            "correlation_id": f"{run.vm_id.hex}:{run.generation}",
            "data": data | ({"name": vm["name"], "next": vm["on_hang"]} if vm else {}),
            "at": self._clock(),
        }
        await plumbing.append_event(connection, event)

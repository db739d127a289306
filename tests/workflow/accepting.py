"""A process that accepts one start and is killed: `python -m tests.workflow.accepting`.

Arguments: Temporal's address, namespace, database, VM, and when it dies: right after the commit, or
after Temporal has taken the start and before that was noted.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any
from uuid import UUID

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from domain.errors import Unavailable
from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.delivery import Delivery
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from store.database import Database
from tests.workflow.bench import PERSON
from worker.temporal_client import TemporalWorkflows

AFTER_COMMIT, AFTER_START = "after-commit", "after-start"


class Doomed(TemporalWorkflows):
    """Dies when it starts a workflow."""

    def __init__(self, client: Client, when: str) -> None:
        super().__init__(client)
        self._when = when

    async def start(self, *args: Any, **kwargs: Any) -> None:
        """Start it or not, and die."""
        while self._when == AFTER_START:
            with suppress(Unavailable):  # a busy server takes it late
                await super().start(*args, **kwargs)
                break
        os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Accept, and wait for the end."""
    address, namespace, url, vm, when = sys.argv[1:]
    client = await Client.connect(
        address, namespace=namespace, data_converter=pydantic_data_converter
    )
    database, secrets = Database(url), NoSecrets()
    delivery = Delivery(database, Doomed(client, when))
    backend = Backend(database, all_actions(secrets, secrets), all_queries(), delivery)
    await backend.run_action(StartVm(vm_id=UUID(vm)), PERSON)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

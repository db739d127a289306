"""A worker process that kills itself at one step: `python -m tests.workflow.doomed`.

Arguments: Temporal's address, namespace, database, the data centre's socket, workflow, step, fault.
It runs what the engine's worker and fencing processes run, with the fault's interceptor.
"""

import asyncio
import sys
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from drivers.tcp_doors import TcpDoors
from engine.backend import Backend
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from store.database import Database
from tests.faults import Fault, FaultAt
from tests.workflow.far_world import FarHypervisor, FarPower, FarSsh
from tests.workflow.patience import MORE_TRIES
from worker.parts import Parts, fencing_worker, operations_worker


async def main() -> None:
    """Work until the fault strikes."""
    address, namespace, url, place, workflow, step, fault = sys.argv[1:]
    client = await Client.connect(
        address, namespace=namespace, data_converter=pydantic_data_converter
    )
    socket = Path(place)
    database, secrets = Database(url), NoSecrets()
    backend = Backend(database, all_actions(secrets, secrets), all_queries())
    parts = Parts(
        database, backend, FarHypervisor(socket), FarPower(socket), TcpDoors(), FarSsh(socket)
    )
    faults = [FaultAt(workflow, step, Fault(fault))]
    async with (
        operations_worker(client, parts, steps_at_once=20, interceptors=[MORE_TRIES, *faults]),
        fencing_worker(client, parts, faults),
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

"""Steps that stand still at the engine's own rows, where no driver could hold them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from tests.fakes import Gate
from tests.workflow.bench import Bench


@asynccontextmanager
async def held(bench: Bench, records: type, name: str) -> AsyncIterator[Gate]:
    """Calls of one method of an engine's records wait at a gate, on this bench alone."""
    gate, plain = Gate(), getattr(records, name)

    async def late(self: Any, *given: Any) -> Any:
        if self._database is bench.database:
            await gate()
        return await plain(self, *given)

    with patch.object(records, name, late):
        yield gate
        gate.open()

"""One connection to MariaDB on which no wait is without end: see `store.server_links`.

Apart from it, since importing the driver takes a fifth of a second, and most engines need none.
"""

import asyncio
from typing import Any

from asyncmy.connection import Connection
from asyncmy.constants.CR import CR_SERVER_LOST
from asyncmy.errors import OperationalError

from store.server_links import CLOSE_S, CONNECT_S


class MariaLink(Connection):
    """One connection to MariaDB.

    Its reads end after `statement_s` by a timer and not by the driver's own limit, which waits in
    a task of its own for each: one that ends in the moment of a cancel swallows it (Python 3.11).
    """

    statement_s: float | None = None

    async def _fill_buffer(self, need: int) -> None:
        if self.statement_s is None:
            await super()._fill_buffer(need)  # type: ignore[misc]  # missing in its stubs
            return
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            self.give_up()

        timer = asyncio.get_running_loop().call_later(self.statement_s, give_up)
        try:
            await super()._fill_buffer(need)  # type: ignore[misc]
        except OperationalError as error:
            if not late:
                raise
            said = f"no answer in time: waited {self.statement_s:g} s for it"
            raise OperationalError(CR_SERVER_LOST, said) from error
        finally:
            timer.cancel()

    async def ensure_closed(self) -> None:
        """Say goodbye and close; without one after `CLOSE_S`."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await super().ensure_closed()
        except TimeoutError:
            self.give_up()

    def give_up(self) -> None:
        """Close at once; whoever waits for an answer gets an error. Repeatable."""
        plug: Any = self._transport  # type: ignore[attr-defined]  # missing in its stubs
        if plug is not None:
            plug.abort()
        self.close()


async def open_mariadb(*, statement_s: float | None = None, **given: Any) -> MariaLink:
    """Connect; the driver's own limit ends with TCP's part, which a paused server still does."""
    link = MariaLink(**given)  # type: ignore[no-untyped-call]  # as its stubs have it
    link.statement_s = statement_s
    try:
        async with asyncio.timeout(CONNECT_S):
            await link.connect()
    except TimeoutError as error:
        raise TimeoutError(f"no connection within {CONNECT_S} s") from error
    return link

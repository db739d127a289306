"""Database servers of a test file's own, which nobody else would miss when they stand still."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from store.migrate import upgrade
from tests.store.conftest import new_cluster, new_database, new_server
from tests.store.mariadb import Server
from tests.store.postgres import Cluster

KINDS = ("postgresql", "mariadb")


@contextmanager
def own_server(kind: str) -> Iterator[Cluster | Server]:
    """A server of this kind, gone at the end."""
    made = new_cluster() if kind == "postgresql" else new_server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


async def migrated_on(server: Cluster | Server, stack: AsyncExitStack) -> str:
    """The address of a new database there with all tables."""
    if isinstance(server, Server):
        return await stack.enter_async_context(server.migrated())
    url = server.url(await new_database(server, "template1"))
    await upgrade(url)
    return url

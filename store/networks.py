"""The list of networks, by pages."""

from uuid import UUID

import sqlalchemy as sa

from store.pages import List, Named
from store.schema import network, vm_nic


def listed(named: Named, *, network_id: UUID | None = None, cluster_id: UUID | None = None) -> List:
    """Networks by name, each with the number of VMs that have a card on it."""
    users = sa.select(sa.func.count(sa.distinct(vm_nic.c.vm_id))).where(
        vm_nic.c.network_id == network.c.id
    )
    query = sa.select(network, users.correlate(network).scalar_subquery().label("vms")).where(
        *named.of(network.c.name)
    )
    if network_id is not None:
        query = query.where(network.c.id == network_id)
    if cluster_id is not None:
        query = query.where(network.c.cluster_id == cluster_id)
    return List(query, (network.c.name, network.c.id))

"""Every action and query there is, wired with what they need."""

from typing import Any

from engine.actions.base import Action
from engine.actions.clusters import ArmClusterAction, CreateClusterAction
from engine.actions.fence_devices import AddFenceDeviceAction, AgentCheck, SecretSealer
from engine.actions.host_config import AddHostAction
from engine.actions.hosts import ActivateHostAction, FenceHostAction, RecoverHostAction
from engine.actions.vm_config import CreateVmAction
from engine.actions.vms import StartVmAction, StopVmAction
from engine.queries.base import Query
from engine.queries.incidents import GetIncidentQuery, ListIncidentsQuery
from engine.queries.inventory import (
    HostSamplesQuery,
    ListClustersQuery,
    ListFenceDevicesQuery,
    ListHostsQuery,
    ListVmsQuery,
)
from engine.queries.operations import GetOperationQuery, ListEventsQuery, ListOperationsQuery


def all_actions(sealer: SecretSealer, agents: AgentCheck) -> tuple[Action[Any, Any], ...]:
    """Every action."""
    return (
        CreateClusterAction(),
        ArmClusterAction(),
        AddHostAction(),
        ActivateHostAction(),
        RecoverHostAction(),
        FenceHostAction(),
        AddFenceDeviceAction(sealer, agents),
        CreateVmAction(),
        StartVmAction(),
        StopVmAction(),
    )


def all_queries() -> tuple[Query[Any, Any], ...]:
    """Every query."""
    return (
        ListClustersQuery(),
        ListHostsQuery(),
        HostSamplesQuery(),
        ListFenceDevicesQuery(),
        ListVmsQuery(),
        GetOperationQuery(),
        ListOperationsQuery(),
        ListIncidentsQuery(),
        GetIncidentQuery(),
        ListEventsQuery(),
    )

"""Every action and query there is, wired with what they need."""

from typing import Any

from engine.actions.base import Action
from engine.actions.hosts import ActivateHostAction, RecoverHostAction
from engine.actions.inventory import (
    AddFenceDeviceAction,
    AddHostAction,
    AgentCheck,
    ArmClusterAction,
    CreateClusterAction,
    CreateVmAction,
    SecretSealer,
)
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


def all_actions(sealer: SecretSealer, agents: AgentCheck) -> tuple[Action[Any], ...]:
    """Every action."""
    return (
        CreateClusterAction(),
        ArmClusterAction(),
        AddHostAction(),
        ActivateHostAction(),
        RecoverHostAction(),
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

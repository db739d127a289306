"""Every action and query there is, wired with what they need."""

from collections.abc import Iterable
from typing import Any

from engine.actions.affinity import (
    CreateAffinityGroupAction,
    DeleteAffinityGroupAction,
    EditAffinityGroupAction,
)
from engine.actions.base import Action
from engine.actions.clusters import (
    ArmClusterAction,
    CreateClusterAction,
    EditClusterAction,
    RemoveClusterAction,
)
from engine.actions.fence_devices import (
    AddFenceDeviceAction,
    AgentCheck,
    EditFenceDeviceAction,
    RemoveFenceDeviceAction,
    SecretSealer,
)
from engine.actions.host_config import AddHostAction, EditHostAction, RemoveHostAction
from engine.actions.hosts import ActivateHostAction, FenceHostAction, RecoverHostAction
from engine.actions.imports import ImportVmAction
from engine.actions.networks import (
    CreateNetworkAction,
    EditNetworkAction,
    RemoveNetworkAction,
)
from engine.actions.operations import (
    CancelOperationAction,
    PauseOperationAction,
    PrioritiseOperationAction,
    ResumeOperationAction,
    RetryOperationAction,
)
from engine.actions.vm_config import CreateVmAction, DeleteVmAction, EditVmAction
from engine.actions.vms import StartVmAction, StopVmAction
from engine.queries.affinity import GetAffinityGroupQuery, ListAffinityGroupsQuery
from engine.queries.base import Query
from engine.queries.events import AuditEventsQuery, ListEventsQuery
from engine.queries.foreign import ForeignGuestsQuery
from engine.queries.incidents import GetIncidentQuery, ListIncidentsQuery
from engine.queries.inventory import (
    GetClusterQuery,
    GetFenceDeviceQuery,
    GetHostQuery,
    GetVmQuery,
    HostSamplesQuery,
    ListClustersQuery,
    ListFenceDevicesQuery,
    ListHostsQuery,
    ListVmsQuery,
)
from engine.queries.networks import GetNetworkQuery, ListNetworksQuery
from engine.queries.operations import GetOperationQuery, ListOperationsQuery
from engine.queries.public import (
    AuthMethodsQuery,
    CapabilitiesQuery,
    HealthQuery,
    TimingProfilesQuery,
    VersionQuery,
)
from engine.queries.vms import ShowVmQuery


def all_actions(sealer: SecretSealer, agents: AgentCheck) -> tuple[Action[Any, Any], ...]:
    """Every action."""
    return (
        CreateClusterAction(),
        EditClusterAction(),
        RemoveClusterAction(),
        ArmClusterAction(),
        CreateNetworkAction(),
        EditNetworkAction(),
        RemoveNetworkAction(),
        AddHostAction(),
        EditHostAction(),
        RemoveHostAction(),
        ActivateHostAction(),
        RecoverHostAction(),
        FenceHostAction(),
        AddFenceDeviceAction(sealer, agents),
        EditFenceDeviceAction(sealer, agents),
        RemoveFenceDeviceAction(),
        CreateVmAction(),
        EditVmAction(),
        DeleteVmAction(),
        ImportVmAction(),
        CreateAffinityGroupAction(),
        EditAffinityGroupAction(),
        DeleteAffinityGroupAction(),
        StartVmAction(),
        StopVmAction(),
        CancelOperationAction(),
        RetryOperationAction(),
        PauseOperationAction(),
        ResumeOperationAction(),
        PrioritiseOperationAction(),
    )


def all_queries(actions: Iterable[Action[Any, Any]] = ()) -> tuple[Query[Any, Any], ...]:
    """Every query; of the given actions is told what the engine can do, and what blocks them."""
    actions = tuple(actions)
    return (
        ListClustersQuery(),
        GetClusterQuery(),
        ListHostsQuery(),
        GetHostQuery(),
        HostSamplesQuery(),
        ForeignGuestsQuery(),
        ListNetworksQuery(),
        GetNetworkQuery(),
        ListFenceDevicesQuery(),
        GetFenceDeviceQuery(),
        ListVmsQuery(),
        GetVmQuery(),
        ShowVmQuery(),
        ListAffinityGroupsQuery(),
        GetAffinityGroupQuery(),
        GetOperationQuery(actions),
        ListOperationsQuery(),
        ListIncidentsQuery(),
        GetIncidentQuery(),
        ListEventsQuery(),
        AuditEventsQuery(),
        HealthQuery(),
        VersionQuery(),
        CapabilitiesQuery(actions),
        AuthMethodsQuery(),
        TimingProfilesQuery(),
    )

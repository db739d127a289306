"""The one place that joins the parts of a worker: store, drivers, steps, workflows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Interceptor, Worker, WorkerTuner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.adoptions import Adoptions
from activities.batches import Batches
from activities.dependencies import Dependencies
from activities.fence_checks import FenceChecks
from activities.fencing import Fencing
from activities.guests import Guests
from activities.host_power import HostPowers, Reboots
from activities.hosts import Hosts
from activities.imports import Imports
from activities.maintaining import Maintenance
from activities.migrating import Migrating
from activities.operations import Operations
from activities.planned import Planned
from activities.ports import Hypervisor, PowerSwitch
from activities.readiness import Doors, Readiness
from activities.recovery import Recovery
from activities.rehearsing import Rehearsing
from activities.soft_steps import SoftSteps, Ssh
from activities.stray_copies import StrayCopies
from activities.vm_recovery import VmRecovery
from engine.backend import Backend
from engine.clock import utc_now
from engine.records.adoptions import AdoptionRecords
from engine.records.batches import BatchRecords
from engine.records.dependencies import DependencyRecords
from engine.records.fence_checks import FenceCheckRecords
from engine.records.fencing import FenceRecords
from engine.records.hosts import HostRecords
from engine.records.imports import ImportRecords
from engine.records.maintaining import MaintenanceRecords
from engine.records.migrating import MigrationRecords
from engine.records.operations import OperationRecords, StepRecords
from engine.records.planned import PlannedRecords
from engine.records.readiness import ReadyRecords
from engine.records.recovery import RecoveryRecords
from engine.records.rehearsals import RehearsalRecords
from engine.records.runs import RunRecords
from engine.records.soft_steps import SoftStepRecords
from engine.records.stray_copies import StrayCopyRecords
from engine.records.vm_recovery import VmRecoveryRecords
from store.database import Database
from worker.interceptors import StepInterceptor
from workflows import options
from workflows.activate_host import ActivateHost
from workflows.adopt_copy import AdoptCopy
from workflows.check_fencing import CheckFencing
from workflows.end_copy import EndCopy
from workflows.fence_host import FenceHost
from workflows.import_vm import ImportVm
from workflows.maintain_host import MaintainHost
from workflows.migrate_vm import MigrateVm
from workflows.recover_host import RecoverHost
from workflows.recover_vm import RecoverVm
from workflows.rehearse_fencing import RehearseFencing
from workflows.restart_libvirtd import RestartLibvirtd
from workflows.run_batch import RunBatch
from workflows.shut_down_host import ShutDownHost
from workflows.start_vm import StartVm
from workflows.stop_vm import StopVm

WORKFLOWS: tuple[type, ...] = (
    StartVm,
    StopVm,
    MigrateVm,
    ImportVm,
    FenceHost,
    RecoverHost,
    ActivateHost,
    RecoverVm,
    MaintainHost,
    ShutDownHost,
    RunBatch,
    CheckFencing,
    RehearseFencing,
    RestartLibvirtd,
    EndCopy,
    AdoptCopy,
)

PASSED_THROUGH = ("domain", "activities")
"""Our pure and stateless modules: loading them anew for each workflow would cost a quarter of the
worker's time (notes on the SDK's sandbox) and protect from nothing."""

STICKY = timedelta(seconds=2)
"""How long a cached workflow's next task waits for its worker before any other may take it."""

HEARD = 0.8 * options.BEAT
"""How often beats reach the server at the most, and so cancels the steps, whatever their limit."""

WORKFLOW_SLOTS = 50
FENCING_SLOTS = 16
SHUTDOWN = timedelta(seconds=10)


@dataclass(frozen=True)
class Parts:
    """What a worker's steps stand on."""

    database: Database
    backend: Backend
    hypervisor: Hypervisor
    power: PowerSwitch
    doors: Doors
    ssh: Ssh


def sandbox() -> SandboxedWorkflowRunner:
    """The workflow runner of workers and of the replayer alike."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    return SandboxedWorkflowRunner(restrictions=restrictions)


def operations_worker(
    client: Client,
    parts: Parts,
    *,
    steps_at_once: int,
    interceptors: Sequence[Interceptor] = (),
    cached_workflows: int = 1000,
) -> Worker:
    """Runs every workflow, and the ordinary steps."""
    return Worker(
        client,
        task_queue=options.OPERATIONS,
        workflows=WORKFLOWS,
        activities=ordinary_steps(parts),
        workflow_runner=sandbox(),
        interceptors=[StepInterceptor(StepRecords(parts.database)), *interceptors],
        tuner=WorkerTuner.create_fixed(
            workflow_slots=WORKFLOW_SLOTS,
            activity_slots=steps_at_once,
            local_activity_slots=WORKFLOW_SLOTS,
        ),
        max_cached_workflows=cached_workflows,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_heartbeat_throttle_interval=HEARD,
        graceful_shutdown_timeout=SHUTDOWN,
    )


def fencing_worker(
    client: Client, parts: Parts, interceptors: Sequence[Interceptor] = ()
) -> Worker:
    """Runs the steps that touch power controllers, in slots that nothing else can take."""
    return Worker(
        client,
        task_queue=options.FENCING,
        activities=fencing_steps(parts),
        interceptors=[StepInterceptor(StepRecords(parts.database)), *interceptors],
        tuner=WorkerTuner.create_fixed(activity_slots=FENCING_SLOTS),
        max_heartbeat_throttle_interval=HEARD,
        graceful_shutdown_timeout=SHUTDOWN,
    )


def fencing_steps(parts: Parts) -> list[Any]:
    """The steps of the queue `fencing`."""
    records, checks = FenceRecords(parts.database), FenceCheckRecords(parts.database)
    rehearsals = RehearsalRecords(parts.database)
    return [
        *_methods(Fencing(parts.power, parts.hypervisor, records, now=utc_now)),
        *_methods(FenceChecks(parts.power, parts.hypervisor, checks, now=utc_now)),
        *_methods(Rehearsing(parts.power, parts.hypervisor, rehearsals, now=utc_now)),
        *_methods(HostPowers(parts.hypervisor, parts.power, _planned(parts))),
    ]


def ordinary_steps(parts: Parts) -> list[Any]:
    """The steps of the queue `operations`."""
    subjects = (
        Operations(OperationRecords(parts.database)),
        Guests(parts.hypervisor, RunRecords(parts.database, parts.backend)),
        Maintenance(MaintenanceRecords(parts.database, parts.backend)),
        Migrating(parts.hypervisor, MigrationRecords(parts.database, parts.backend)),
        Imports(parts.hypervisor, ImportRecords(parts.database)),
        Hosts(parts.hypervisor, parts.power, HostRecords(parts.database, parts.backend)),
        Recovery(RecoveryRecords(parts.database, parts.backend), now=utc_now),
        Readiness(parts.hypervisor, parts.doors, ReadyRecords(parts.database)),
        Dependencies(parts.hypervisor, parts.doors, DependencyRecords(parts.database)),
        VmRecovery(parts.hypervisor, VmRecoveryRecords(parts.database, parts.backend)),
        StrayCopies(parts.hypervisor, StrayCopyRecords(parts.database)),
        Adoptions(parts.hypervisor, AdoptionRecords(parts.database)),
        Batches(BatchRecords(parts.database, parts.backend)),
        Reboots(parts.hypervisor, _planned(parts)),
        Planned(_planned(parts)),
        SoftSteps(parts.hypervisor, parts.ssh, SoftStepRecords(parts.database)),
    )
    return [method for subject in subjects for method in _methods(subject)]


def _planned(parts: Parts) -> PlannedRecords:
    return PlannedRecords(parts.database, parts.backend)


def _methods(subject: object) -> list[Any]:
    names = [name for name in dir(subject) if not name.startswith("_")]
    found = [getattr(subject, name) for name in names]
    return [method for method in found if hasattr(method, "__temporal_activity_definition")]

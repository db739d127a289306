"""What the relay does from time to time, beside delivering what the outbox holds."""

from engine.backend import Backend
from engine.delivery import Workflows
from engine.grants import Grants
from engine.records.going_home import GoingHome
from engine.records.hosts import HostRecords
from engine.records.making_room import StoppedForOthers
from engine.records.planned import PlannedRecords
from engine.retention import Retention
from engine.sweeper import EVERY_S as SWEEP_EVERY_S
from engine.sweeper import Sweeper
from store.database import Database
from worker.relay import GRANT_EVERY_S, RETENTION_EVERY_S, Duty


def relay_duties(
    database: Database, backend: Backend, workflows: Workflows, retention_days: int
) -> tuple[Duty, ...]:
    """Locks, vanished workflows, VMs that are to be started or to go home, the archive."""
    sweeper = Sweeper(database, backend, workflows)
    return (
        Duty("grant locks", GRANT_EVERY_S, Grants(database, backend).grant, woken=True),
        Duty("sweep", SWEEP_EVERY_S, sweeper.sweep),
        Duty(
            "start left",
            SWEEP_EVERY_S,
            HostRecords(database, backend).start_left_down,
            woken=True,
        ),
        Duty("start back", SWEEP_EVERY_S, PlannedRecords(database, backend).start_remembered),
        Duty("start stopped", SWEEP_EVERY_S, StoppedForOthers(database, backend).start_again),
        Duty("go home", SWEEP_EVERY_S, GoingHome(database, backend).go_home),
        Duty("archive", RETENTION_EVERY_S, Retention(database, retention_days).tidy),
    )

"""What the relay does from time to time, beside delivering what the outbox holds."""

from engine.backend import Backend
from engine.delivery import Workflows
from engine.grants import Grants
from engine.records.hosts import HostRecords
from engine.retention import Retention
from engine.sweeper import EVERY_S as SWEEP_EVERY_S
from engine.sweeper import Sweeper
from store.database import Database
from worker.relay import GRANT_EVERY_S, RETENTION_EVERY_S, Duty


def relay_duties(
    database: Database, backend: Backend, workflows: Workflows, retention_days: int
) -> tuple[Duty, ...]:
    """Granting locks, sweeping vanished workflows, starting what was left, filling the archive."""
    sweeper = Sweeper(database, backend, workflows)
    return (
        Duty("grant locks", GRANT_EVERY_S, Grants(database, backend).grant, woken=True),
        Duty("sweep", SWEEP_EVERY_S, sweeper.sweep),
        Duty("start left", SWEEP_EVERY_S, HostRecords(database, backend).start_left_down),
        Duty("archive", RETENTION_EVERY_S, Retention(database, retention_days).tidy),
    )

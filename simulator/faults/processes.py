"""What goes wrong with the engine itself: its processes, its clock, its database, its Temporal."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta

from simulator.engine import ProcessDied, Running
from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.loop import Process

READING = ("SELECT", "BEGIN", "CONNECT", "PRAGMA")


def _running(troubles: Troubles, fault: Fault) -> Running | None:
    return troubles.stage.engine.running.get(fault.subject)


def kill(troubles: Troubles, fault: Fault) -> None:
    """SIGKILL; the supervisor starts it again after `again_after_s`."""
    again_s = float(fault.args.get("again_after_s", 0.5))
    troubles.stage.engine.kill(fault.subject, again_after_s=again_s)


def freeze(troubles: Troubles, fault: Fault) -> None:
    """SIGSTOP."""
    if (made := _running(troubles, fault)) is not None:
        made.process.freeze()


def thaw(troubles: Troubles, fault: Fault) -> None:
    """SIGCONT."""
    if (made := _running(troubles, fault)) is not None and made.process.frozen:
        made.process.thaw(troubles.stage.loop)


def jump(troubles: Troubles, fault: Fault) -> None:
    """The clock of a machine is set forward or back."""
    troubles.clocks.jump(fault.subject, timedelta(seconds=float(fault.args["by_s"])))


def set_clock_right(troubles: Troubles, fault: Fault) -> None:
    """The clock is set right."""
    troubles.clocks.jump(fault.subject, timedelta(0))


def lose_database(troubles: Troubles, _fault: Fault) -> None:
    """No statement comes through."""
    troubles.stage.engine.database_up = False


def regain_database(troubles: Troubles, _fault: Fault) -> None:
    """They do again."""
    troubles.stage.engine.database_up = True


def switch_temporal(up: bool) -> Callable[[Troubles, Fault], None]:
    """Down, or up again."""

    def switch(troubles: Troubles, _fault: Fault) -> None:
        if troubles.stage.server.up is not up:
            troubles.stage.server.switch(up)

    return switch


def evict(troubles: Troubles, fault: Fault) -> None:
    """Each workflow of the worker is rebuilt by replay at its next task."""
    if (made := _running(troubles, fault)) is not None and made.worker is not None:
        made.worker.evict_all()


def at_next_commit(*, done: bool, dies: bool) -> Callable[[Troubles, Fault], None]:
    """The next writing transaction of a process ends in an error, or with the process.

    done   whether the database has taken it all the same: then only the answer is lost
    """

    def plan(troubles: Troubles, fault: Fault) -> None:
        engine, memory = troubles.stage.engine, troubles.stage.memory
        written = False

        def hook(process: Process, statement: str) -> None:
            nonlocal written
            if process.name != fault.subject:
                return
            if statement.startswith("BEGIN"):
                written = False
            elif statement != "COMMIT":
                written = written or not statement.startswith(READING)
            elif written:
                troubles.recorder.statements.remove(hook)
                if done:
                    memory.raw.execute("COMMIT")
                if dies:
                    engine.kill(fault.subject)
                    raise ProcessDied(process.name)
                raise sqlite3.OperationalError("disk I/O error")

        troubles.recorder.statements.append(hook)

    return plan


def terminate(troubles: Troubles, fault: Fault) -> None:
    """Somebody ends a running workflow of this type, without asking it."""
    for chain in troubles.stage.server.runs.values():
        if chain[-1].open and chain[-1].start.workflow == fault.subject:
            troubles.stage.server.terminate(chain[-1])
            return


PROCESSES: dict[str, Kind] = {
    "process.kill": Kind("a process of the engine is killed", kill),
    "process.freeze": Kind("a process of the engine stands still", freeze, thaw),
    "process.kill_before_commit": Kind(
        "a process dies before its next change is written", at_next_commit(done=False, dies=True)
    ),
    "process.kill_after_commit": Kind(
        "a process dies right after its next change was written",
        at_next_commit(done=True, dies=True),
    ),
    "clock.jump": Kind("the clock of an engine's machine jumps", jump, set_clock_right),
    "database.away": Kind("no statement comes through", lose_database, regain_database),
    "database.commit_failed": Kind(
        "a change is not written, and its answer is an error",
        at_next_commit(done=False, dies=False),
    ),
    "database.commit_lost": Kind(
        "a change is written, and its answer is an error", at_next_commit(done=True, dies=False)
    ),
    "temporal.down": Kind("Temporal is down", switch_temporal(False), switch_temporal(True)),
    "worker.evict": Kind("a worker forgets its workflows and replays them", evict),
    "workflow.terminated": Kind("a person terminates a workflow in Temporal", terminate),
}

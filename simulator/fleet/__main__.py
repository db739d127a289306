"""The fleet's process: `python -m simulator.fleet`, with the settings of the engine's processes.

It loads far less than they do, and so is there before them.
"""

import asyncio
import os
import signal
import sys

import structlog

from domain.errors import EngineError
from simulator.fleet.server import run_fleet
from simulator.fleet.spec import parse_fleet
from worker.exit import exit_process
from worker.logs import set_up_logs
from worker.settings import Settings

log = structlog.get_logger()


async def _run(settings: Settings) -> int:
    task = asyncio.ensure_future(run_fleet(parse_fleet(settings.fleet), settings.var))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except EngineError as error:
        log.error("process failed", role="fleet", why=error.detail)
    except Exception as error:
        log.exception("process failed", role="fleet", why=repr(error))
    return 1


def main() -> None:
    """Serve until told to stop; ends the process with 0, or 1 after a failure."""
    try:
        settings = Settings.from_env(os.environ)
    except EngineError as error:
        sys.stderr.write(f"error: {error.detail} ({error.code}); {error.next_step}\n")
        exit_process(1)
    set_up_logs(settings.log_level, "fleet")
    exit_process(asyncio.run(_run(settings)))


if __name__ == "__main__":
    main()

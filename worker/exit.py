"""Leave a process that used a Temporal client.

The SDK's threads may call into the interpreter while it is being torn down, and the process then
dies of SIGABRT or SIGSEGV in `PyGILState_Release` instead of ending with its own code (sdk-python
issue 300). Every such process therefore leaves through `exit_process`, which never starts the
teardown. Exit handlers and `finally` blocks of other threads do not run: close what matters first.
"""

import asyncio
import contextlib
import logging
import os
import sys
from typing import NoReturn

LEAVE_WITHIN_S = 5.0
"""How long `leave` waits for cancelled tasks.

Higher: a task that ignores its cancellation delays the exit. Lower: clean-up is cut off.
"""


def exit_process(code: int) -> NoReturn:
    """Flush logs and standard streams, then end the process with `code` at once."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A reader that has gone away must not change the exit code.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


async def leave(code: int, within_s: float = LEAVE_WITHIN_S) -> NoReturn:
    """Cancel every other task of this loop, wait for them at most `within_s`, and exit."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=within_s)
    exit_process(code)

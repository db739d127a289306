"""Start a program that cannot outlive its parent.

This file is both a module and a script: `bound_to_parent` gives the argument vector that runs it
as a shim, which asks the kernel for SIGKILL on the parent's death and then becomes the program, so
the process id stays the same. A shim instead of a `preexec_fn`, because Python code between fork
and exec can deadlock in a process with threads, and the Temporal SDK has many.

Races: the parent may die before the shim has asked; the shim then sees another parent and does not
start the program. The kernel's "parent" is the *thread* that started the child: start it from a
thread that lives as long as the child should, such as the one that runs the event loop.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
EXIT_ORPHAN = 121


def bound_to_parent(command: Sequence[str]) -> list[str]:
    """The arguments that run `command` as a child of this process which dies with it."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def become(parent: int, command: Sequence[str]) -> None:
    """Tie this process to `parent` and replace it with `command`; OSError if either fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(EXIT_ORPHAN)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])

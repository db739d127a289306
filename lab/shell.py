"""Run one program with a deadline and turn its failure into one of our errors."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from domain.errors import Unavailable

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Not the caller's PATH: a user's shell often leaves the sbin folders out."""

ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
"""All that a host or a tool is given, so that no secret of the caller's leaks into it."""


def run(
    *argv: str | Path, timeout_s: float = 20.0, cwd: Path | None = None, check: bool = True
) -> str:
    """Run a program to its end and return its standard output.

    Raises Unavailable when it fails (unless `check` is off) or does not end in time.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise Unavailable(
            "LAB_PROGRAM_MISSING",
            f"{command[0]} is not installed",
            next_step="run `holdfast lab up` to see which packages are missing",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            "LAB_COMMAND_TIMEOUT", f"`{' '.join(command)}` did not end in {timeout_s:g} s"
        ) from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise Unavailable(
            "LAB_COMMAND_FAILED", f"`{' '.join(command)}` ended with {done.returncode}: {said}"
        )
    return done.stdout


def spawn_detached(argv: Sequence[str], log: Path, extra: Mapping[str, str] | None = None) -> int:
    """Start a daemon of its own session and return its process id.

    It is never our child: the machine's init reaps it, so that a caller that lives long (a test, a
    power controller) keeps no zombie of each host it has switched off.
    """
    script = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), *argv],
        env={**ENVIRONMENT, **(extra or {})},
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=20,
    )
    return int(done.stdout)


def package_root() -> str:
    """The folder that holds our packages, for the PYTHONPATH of a process of ours."""
    return os.fspath(Path(__file__).resolve().parent.parent)

"""Get the pinned Temporal program: by the SDK's download, or by a build with Go.

`deploy/temporal/go.mod` is the only place that names versions: the CLI to build or download, and
the oldest Go that can build it. A program is made in a scratch folder and moved to its name when it
is complete, so a name that exists can be trusted; both getters may be repeated.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from worker.child import bound_to_parent

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "deploy" / "temporal"
PACKAGE = "github.com/temporalio/cli/cmd/temporal"
VERSION_SYMBOL = "github.com/temporalio/cli/internal/temporalcli.Version"

DOWNLOAD_STALLED_S = 6.0
"""How long a download may bring no byte.

Higher: a machine whose network swallows packets waits longer before the build starts.
Lower: a slow proxy is taken for no network, and minutes of building follow.
"""
GO_WITHIN_S = 30.0
BUILD_WITHIN_S = 1800.0
PROGRESS_EVERY_S = 10.0
LOOK_EVERY_S = 0.1

Say = Callable[[str], None]
GoVersion = tuple[int, int, int]


class NotObtained(Exception):
    """This source cannot give us the program; the message says why."""


@dataclass(frozen=True)
class Pin:
    """What `deploy/temporal/go.mod` asks for."""

    version: str
    go: str


def pinned() -> Pin:
    """Read the pin; raises NotObtained where the module is not installed or names no version."""
    try:
        text = (MODULE / "go.mod").read_text()
    except OSError as e:
        raise NotObtained(f"the tool module is missing: {e}") from e
    go = re.search(r"^go (\S+)$", text, re.MULTILINE)
    version = re.search(r"^\s*github\.com/temporalio/cli v(\S+)", text, re.MULTILINE)
    if go is None or version is None:
        raise NotObtained(f"{MODULE / 'go.mod'} names no Go or no CLI version")
    return Pin(version=version[1], go=go[1])


def download_with_sdk(path: Path, env: Mapping[str, str], say: Say) -> None:
    """Let the SDK download the pinned CLI to `path`; given up when nothing arrives any more."""
    pin = pinned()
    say(f"asking the SDK to download Temporal {pin.version}")
    script = str(ROOT / "worker" / "temporal_download.py")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".get-") as scratch:
        command = [sys.executable, "-P", script, scratch, f"v{pin.version}"]
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                bound_to_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=dict(env),
            )
            try:
                code = _while_growing(child, Path(scratch))
            finally:
                child.kill()
                child.wait()
            said.seek(0)
            reason = said.read().strip().splitlines()
        programs = [p for p in Path(scratch).iterdir() if os.access(p, os.X_OK)]
        if code != 0 or len(programs) != 1:
            raise NotObtained(reason[-1] if reason else "the SDK left no program")
        programs[0].replace(path)


def _while_growing(child: subprocess.Popen[bytes], folder: Path) -> int:
    """Wait for the child's end as long as bytes arrive in its folder."""
    size, since = 0, time.monotonic()
    while time.monotonic() - since < DOWNLOAD_STALLED_S:
        try:
            return child.wait(timeout=LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            now = sum(p.stat().st_size for p in folder.iterdir())
        if now > size:
            size, since = now, time.monotonic()
    raise NotObtained(f"no byte arrived for {DOWNLOAD_STALLED_S:.0f} s")


def build_with_go(path: Path, env: Mapping[str, str], say: Say) -> None:
    """Build the pinned CLI to `path`; about four minutes on two cores, with a line every 10 s."""
    pin = pinned()
    go = _checked_go(pin, env)
    say(f"building Temporal {pin.version} with Go from {MODULE} (about 4 minutes, done once)")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".get-") as scratch:
        made = Path(scratch) / "temporal"
        child = subprocess.Popen(
            bound_to_parent(build_command(go, made, pin)),
            cwd=MODULE,
            env=build_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            code, tail = _followed(child, say)
        finally:
            child.kill()
            child.wait()
        if code != 0 or not made.is_file():
            raise NotObtained(f"go build ended with {code}: {' | '.join(tail)}")
        made.replace(path)


def build_command(go: str, made: Path, pin: Pin) -> list[str]:
    """The build: exactly what go.sum vouches for, stripped, and told its own version."""
    flags = f"-s -w -X {VERSION_SYMBOL}={pin.version}"
    modes = ["-v", "-mod=readonly", "-buildvcs=false"]
    return [go, "build", *modes, "-ldflags", flags, "-o", str(made), PACKAGE]


def build_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment; without C, and without fetching another tool chain."""
    return {**env, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}


def _checked_go(pin: Pin, env: Mapping[str, str]) -> str:
    go = shutil.which("go", path=env.get("PATH", os.defpath))
    if go is None:
        raise NotObtained("there is no `go` on PATH")
    try:
        said = subprocess.run(
            [go, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GO_WITHIN_S,
            check=False,
            env=build_environment(env),
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as e:
        raise NotObtained(f"{go} does not run: {e}") from e
    have = go_version(said)
    if have is None:
        raise NotObtained(f"{go} does not tell its version")
    if have < (go_version(f"go{pin.go}") or have):
        raise NotObtained(f"{go} is {'.'.join(map(str, have))}, {pin.go} or newer is needed")
    return go


def go_version(said: str) -> GoVersion | None:
    """The version in the words of `go version`; a release candidate counts as its release."""
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", said)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


@dataclass
class _Progress:
    """What a running `go build -v` has said so far; written by one thread, read by another."""

    compiled: int = 0
    fetched: int = 0
    now: str = "starting"
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    def read(self, lines: IO[str]) -> None:
        for line in map(str.strip, lines):
            if line.startswith("go: downloading "):
                self.fetched += 1
                self.now = line.removeprefix("go: ")
            elif re.fullmatch(r"[\w.~@/-]+", line):
                self.compiled += 1
                self.now = f"compiling {line}"
            else:
                self.tail.append(line)


def _followed(child: subprocess.Popen[str], say: Say) -> tuple[int, list[str]]:
    """Wait for the build, tell how far it is, and return its code and last complaints."""
    assert child.stderr is not None
    progress, started = _Progress(), time.monotonic()
    reader = threading.Thread(target=progress.read, args=(child.stderr,), daemon=True)
    reader.start()
    while (elapsed := time.monotonic() - started) < BUILD_WITHIN_S:
        try:
            code = child.wait(timeout=PROGRESS_EVERY_S)
        except subprocess.TimeoutExpired:
            counts = f"{progress.fetched} modules fetched, {progress.compiled} packages compiled"
            say(f"{elapsed + PROGRESS_EVERY_S:4.0f} s: {counts}, {progress.now}")
            continue
        reader.join(timeout=GO_WITHIN_S)
        return code, list(progress.tail)
    raise NotObtained(f"the build took more than {BUILD_WITHIN_S:.0f} s")

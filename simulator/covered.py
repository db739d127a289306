"""Which branches of the engine's decisions a sample of seeds goes through.

Measured in a process of its own, so that what modules do while they are imported is seen too. Only
a sample: following each line makes simulations several times slower. Workflows are not imported
anew here, as the sandbox of a real worker does, so that they are seen like everything else.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from domain.base import Frozen
from simulator.seeds import simulate

PACKAGES = ("domain", "workflows")


class Covered(Frozen):
    """Branches of one package, and how many of them were taken."""

    package: str
    branches: int
    taken: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.taken / self.branches if self.branches else 1.0


def covered(first: int, seeds: int) -> tuple[Covered, ...]:
    """Run so many seeds and count; nothing where the package `coverage` is not installed."""
    if find_spec("coverage") is None:
        return ()
    with TemporaryDirectory() as folder:
        data, told = Path(folder) / "data", Path(folder) / "told.json"
        sources = ",".join(PACKAGES)
        run = ("--branch", f"--source={sources}", "-m", __name__, str(first), str(seeds))
        _coverage("run", data, *run)
        _coverage("json", data, "-q", "-o", str(told))
        return counted(json.loads(told.read_text())["files"])


def counted(files: Mapping[str, Any]) -> tuple[Covered, ...]:
    """What coverage tells of each file, by package."""
    branches: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for path, told in files.items():
        (package,) = set(Path(path).parts) & set(PACKAGES)
        branches[package] += told["summary"]["num_branches"]
        taken[package] += told["summary"]["covered_branches"]
    return tuple(
        Covered(package=name, branches=branches[name], taken=taken[name]) for name in PACKAGES
    )


def _coverage(command: str, data: Path, *words: str) -> None:
    run = [sys.executable, "-m", "coverage", command, f"--data-file={data}", *words]
    subprocess.run(run, check=True, capture_output=True)


def _main() -> None:
    first, seeds = map(int, sys.argv[1:])
    for seed in range(first, first + seeds):
        simulate(seed)


if __name__ == "__main__":
    _main()

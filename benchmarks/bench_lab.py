"""A lab of real hosts for a benchmark, gone after it; and lines that tell how far it is."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from cli.demo_grounds import why_no_lab
from domain.errors import Refused
from lab import network
from lab.guest_image import cache_folder
from lab.lab import Lab, default_var

NETWORK = 92
"""Third byte of the lab's addresses, or the next one that is free."""

STARTED_S = time.monotonic()


def tell(text: str) -> None:
    """One line of progress, with the time since the start and the load of the machine."""
    since_s = time.monotonic() - STARTED_S
    print(f"[{since_s:6.0f} s, load {os.getloadavg()[0]:.1f}] {text}", flush=True)


@contextmanager
def bench_lab(var: Path, name: str = "bench", hosts: int = 3) -> Iterator[Lab]:
    """A lab in a folder that is empty before; Refused (`LAB_NOT_POSSIBLE`) where none can be."""
    if why := why_no_lab():
        raise Refused("LAB_NOT_POSSIBLE", why, next_step="as root, after `make setup`")
    # Every lost connection is a line of libvirt's own, and losing connections is what is measured.
    libvirt.registerErrorHandler(lambda *_: None, None)
    Lab(name=name, var=var).down()
    shutil.rmtree(var, ignore_errors=True)
    lab = Lab(
        name=name,
        k=network.free_k(first=NETWORK),
        hosts=hosts,
        var=var,
        cache=cache_folder(default_var()),
    )
    try:
        tell(f"a lab of {hosts} hosts starts")
        lab.up()
        yield lab
    finally:
        lab.down()

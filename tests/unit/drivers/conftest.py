"""Hosts of libvirt's test driver, a bounded wait, and what to do about missing components."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from domain.inventory import GuestSpec, VirtType
from drivers.libvirt_hypervisor import LibvirtHypervisor

NODE = """
<node>
  <domain type='test'><name>foreign</name><uuid>{foreign}</uuid><memory>65536</memory>
    <vcpu>1</vcpu><os><type>hvm</type></os></domain>
</node>
"""

FOREIGN = UUID("4b4d1f1e-0000-4000-8000-00000000f0f0")


@pytest.fixture
def foreign_vm() -> UUID:
    """The id of a running domain without our metadata, on the host of `host_uri`."""
    return FOREIGN


@pytest.fixture
def host_uri(tmp_path: Path) -> str:
    """A host of the test driver; each connection to it is a world of its own."""
    path = tmp_path / "node.xml"
    path.write_text(NODE.format(foreign=FOREIGN))
    return f"test://{path}"


@pytest.fixture
async def hypervisor() -> AsyncIterator[LibvirtHypervisor]:
    made = LibvirtHypervisor()
    yield made
    await made.close()


@pytest.fixture
def spec() -> GuestSpec:
    return GuestSpec(vm_id=uuid4(), name="db <1>", memory_mib=64, vcpus=1, virt_type=VirtType.TEST)


Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait until something holds, at most 90 s."""

    async def wait(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(90):
            while not holds():  # noqa: ASYNC110 - what holds is not ours to signal
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def needs() -> Callable[[bool, str], None]:
    """Skip without a component; under CI=true that is a failure."""

    def check(there: bool, what: str) -> None:
        if not there and os.environ.get("CI") == "true":
            pytest.fail(f"missing under CI: {what}")
        if not there:
            pytest.skip(f"needs {what}")

    return check

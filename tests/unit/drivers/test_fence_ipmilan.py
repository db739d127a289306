"""The real fence_ipmilan and ipmitool against a real IPMI peer."""

import asyncio
import importlib.util
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from domain.errors import NoAnswer
from domain.inventory import FenceDevice, PowerReading
from drivers.fence_agents import FenceAgents

pytestmark = pytest.mark.lab

PASSWORD = "s3cret pass"


@pytest.fixture
async def port(tmp_path: Path, needs: Callable[[bool, str], None]) -> AsyncIterator[int]:
    """A BMC's port; its machine is on."""
    needs(shutil.which("fence_ipmilan", path="/usr/sbin") is not None, "fence-agents")
    needs(shutil.which("ipmitool") is not None, "ipmitool")
    needs(importlib.util.find_spec("pyghmi") is not None, "pyghmi")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    number = free_port()
    bmc = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("bmc.py")),
        str(number),
        str(password),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert bmc.stdout
        async with asyncio.timeout(20):
            assert await bmc.stdout.readline() == b"ready\n"
        yield number
    finally:
        bmc.kill()
        await bmc.wait()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def agents(password: str = PASSWORD) -> FenceAgents:
    async def secrets(_device: UUID) -> Mapping[str, SecretStr]:
        return {"password": SecretStr(password)}

    return FenceAgents(secrets)


def device(port: int, deadline_s: float = 30.0) -> FenceDevice:
    options = {"ip": "127.0.0.1", "ipport": str(port), "lanplus": "1", "username": "admin"}
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name="bmc1",
        agent="fence_ipmilan",
        options=options,
        deadline_s=deadline_s,
    )


async def test_power_is_cut_and_given_back_and_read_back_each_time(port: int) -> None:
    fence, bmc = agents(), device(port)
    readings = [await fence.read(bmc)]
    for switch in (fence.off, fence.off, fence.on, fence.on):
        await switch(bmc)
        readings.append(await fence.read(bmc))
    on, off = PowerReading.ON, PowerReading.OFF
    assert readings == [on, off, off, on, on]


async def test_a_wrong_password_reads_unknown_and_cuts_nothing(port: int) -> None:
    bmc = device(port)
    wrong = agents("wrong password")
    assert await wrong.read(bmc) is PowerReading.UNKNOWN
    with pytest.raises(NoAnswer) as failed:
        await wrong.off(bmc)
    assert failed.value.code == "FENCE_AGENT_FAILED"
    assert "wrong password" not in str(failed.value)
    assert await agents().read(bmc) is PowerReading.ON


async def test_a_dead_controller_reads_unknown_within_the_deadline(
    needs: Callable[[bool, str], None],
) -> None:
    needs(shutil.which("fence_ipmilan", path="/usr/sbin") is not None, "fence-agents")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        bmc = device(mute.getsockname()[1], deadline_s=1.5)
        assert await agents().read(bmc) is PowerReading.UNKNOWN
        with pytest.raises(NoAnswer, match="FENCE_AGENT_SILENT"):
            await agents().off(bmc)


async def test_the_agents_own_metadata_names_options_and_actions(
    needs: Callable[[bool, str], None],
) -> None:
    needs(shutil.which("fence_ipmilan", path="/usr/sbin") is not None, "fence-agents")
    parameters = await agents().agent_parameters("fence_ipmilan")
    assert {"ip", "lanplus", "password", "power_wait", "method"} <= parameters.names
    assert {"on", "off", "status"} <= parameters.actions
    assert "fence_ipmilan" in agents().installed_agents()


async def test_the_machine_that_a_bmc_manages_is_read_by_ipmi_itself(port: int) -> None:
    machine = UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert machine in await agents().machine(device(port))
    assert await agents("wrong password").machine(device(port)) == ()

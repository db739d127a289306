"""The raw bytes of Get System GUID, and how a BMC is asked for them."""

from uuid import UUID

import pytest

from drivers.fence_guid import guid_command, guids
from drivers.libvirt_machine import machine_of

pytestmark = pytest.mark.unit

MACHINE = UUID("00112233-4455-6677-8899-aabbccddeeff")


@pytest.mark.parametrize(
    "raw", [MACHINE.bytes_le, MACHINE.bytes, MACHINE.bytes[::-1]], ids=["smbios", "rfc4122", "ipmi"]
)
def test_a_machine_is_known_by_its_bytes_in_any_order(raw: bytes) -> None:
    assert MACHINE in guids(f" {raw.hex(' ')}\n")
    other = UUID("10112233-4455-6677-8899-aabbccddeeff")
    assert other not in guids(raw.hex(" "))


@pytest.mark.parametrize("printed", ["", "00 11", "00 " * 16, "ff " * 16, "Unable to establish"])
def test_what_is_no_guid_tells_no_machine(printed: str) -> None:
    assert guids(printed) == ()


def test_a_bmc_is_asked_as_its_agent_asks_it_and_no_password_is_an_argument() -> None:
    options = {"ip": "10.0.0.1", "ipport": "6230", "lanplus": "1", "username": "admin"}
    command = guid_command("fence_ipmilan", options)
    assert command is not None
    told = " ".join(command)
    assert told == ("ipmitool -I lanplus -H 10.0.0.1 -p 6230 -U admin -f /dev/stdin raw 0x06 0x37")


def test_a_device_that_speaks_no_ipmi_is_not_asked() -> None:
    assert guid_command("fence_apc_snmp", {"ip": "10.0.0.1"}) is None
    assert guid_command("fence_ipmilan", {}) is None


def test_a_host_is_known_by_its_capabilities() -> None:
    told = f"<capabilities><host><uuid>{MACHINE}</uuid></host></capabilities>"
    assert machine_of(told) == MACHINE
    assert machine_of("<capabilities><host/></capabilities>") is None
    assert machine_of("not xml") is None

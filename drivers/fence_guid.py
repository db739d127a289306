"""Which machine an IPMI controller manages: the raw bytes of Get System GUID (IPMI 2.0, 22.14).

BMCs disagree on the order of its bytes, and `ipmitool mc guid` has to be told which it is; so the
bytes are read, and taken in each order: as SMBIOS writes a UUID, as RFC 4122 does, and reversed, as
IPMI says.
"""

from collections.abc import Mapping
from uuid import UUID

GET_SYSTEM_GUID = ("raw", "0x06", "0x37")
SPEAKS_IPMI = frozenset(
    {
        *("fence_ipmilan", "fence_ipmilanplus", "fence_idrac", "fence_imm"),
        *("fence_ilo3", "fence_ilo4", "fence_ilo5"),
    }
)
"""Agents that are `ipmitool` underneath."""

TRUE = frozenset({"1", "true", "yes", "on"})
BYTES = 16


def guid_command(agent: str, options: Mapping[str, str]) -> list[str] | None:
    """How to ask a device; the password is read from standard input. None: it speaks no IPMI."""
    told = {name.replace("-", "_"): value for name, value in options.items()}
    address = told.get("ip", told.get("ipaddr"))
    if agent not in SPEAKS_IPMI or not address:
        return None
    plus = agent != "fence_ipmilan" or told.get("lanplus", "0").lower() in TRUE
    command = ["ipmitool", "-I", "lanplus" if plus else "lan", "-H", address]
    for option, flag in (("ipport", "-p"), ("cipher", "-C"), ("privlvl", "-L")):
        if value := told.get(option):
            command += [flag, value]
    if user := told.get("username", told.get("login")):
        command += ["-U", user]
    return [*command, "-f", "/dev/stdin", *GET_SYSTEM_GUID]


def guids(printed: str) -> tuple[UUID, ...]:
    """The UUID that these bytes may stand for; empty when they are none, or all the same byte."""
    try:
        raw = bytes.fromhex("".join(printed.split()))
    except ValueError:
        return ()
    if len(raw) != BYTES or len(set(raw)) == 1:
        return ()  # zeros or ones: a controller that was never told
    return (UUID(bytes_le=raw), UUID(bytes=raw), UUID(bytes=raw[::-1]))

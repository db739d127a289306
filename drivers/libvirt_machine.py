"""Which machine a host is, as libvirt's capabilities tell it."""

from uuid import UUID
from xml.etree import ElementTree as ET


def machine_of(capabilities: str) -> UUID | None:
    """The host's UUID, which libvirtd has from SMBIOS or its own configuration; None without."""
    try:
        return UUID(ET.fromstring(capabilities).findtext("./host/uuid", ""))
    except (ET.ParseError, ValueError):
        return None

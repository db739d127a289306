"""Which libvirt addresses lead to the same machine, however they are spelt.

An address is kept as it was given; this is only what two of them are compared by. No name is
resolved: two names of one machine stay two, which reconciling notices by the copies it finds there.
"""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

DEFAULT_PORTS = {"tcp": 16509, "tls": 16514, "ssh": 22}
"""Where libvirt listens, or SSH, when an address names no port; by transport."""


def place_of(uri: str) -> str:
    """Driver, machine and port of an address; equal for two spellings of one place.

    User, path and parameters do not matter, nor does the transport on its usual port. An address
    that cannot be read, or that names no machine, is compared as it is written.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return uri
    if not parts.hostname:
        return uri
    driver, _, transport = parts.scheme.partition("+")
    usual = DEFAULT_PORTS.get(transport)
    return f"{driver}://{_machine(parts.hostname)}:{'usual' if port in (None, usual) else port}"


def _machine(name: str) -> str:
    plain = name.lower().rstrip(".")
    try:
        address = ip_address(plain)
    except ValueError:
        return plain
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
